"""Score normalisation by a cohort of other speakers."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Optional

import numpy as np
import torch

NORMS = ("none", "z", "t", "s", "as")
SCORES = 1 << 25  # cohort scores at a time; 128 MiB
SMALLEST = 1e-6  # standard deviation: a cohort of copies has none


class Statistics(NamedTuple):
    """Mean and standard deviation of cohort scores.

    Arguments
    ---------
    mean, deviation : numpy.ndarray
        float32, both of one shape.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def take(self, rows: np.ndarray) -> "Statistics":
        """Those of some rows, with repetitions."""
        return Statistics(self.mean[rows], self.deviation[rows])


def speaker_means(vectors: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Mean vector of each speaker, in the order of their names.

    Arguments
    ---------
    vectors : numpy.ndarray
        (K, D), unit vectors where recordings are to weigh the same.
    speakers : numpy.ndarray
        (K,) labels.

    Returns
    -------
    numpy.ndarray
        (speakers, D).

    Example
    -------
    >>> speaker_means(
    ...     np.array([[0.0], [1.0], [4.0]]), np.array(["a", "b", "a"])
    ... )
    array([[2.],
           [1.]])
    """
    _, codes, counts = np.unique(
        speakers, return_inverse=True, return_counts=True
    )
    order = codes.argsort(kind="stable")
    starts = np.append(0, counts.cumsum()[:-1])
    return np.add.reduceat(vectors[order], starts) / counts[:, None]


def cohort_statistics(
    vectors: np.ndarray,
    cohort: np.ndarray,
    top: Optional[int] = None,
    device: torch.device = "cpu",
) -> Statistics:
    """Mean and deviation of each vector's scores against a cohort.

    Blockwise, so that memory is that of the inputs and `SCORES` scores. The
    highest scores are selected, not sorted.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D) float32, each once.
    cohort : numpy.ndarray
        (K, D) float32; a score is the inner product.
    top : int, optional
        Use the highest scores of each vector only (adaptive), 2 to K.
    device : str or torch.device
        Where to compute.

    Returns
    -------
    Statistics
        (N,) each; deviations with K - 1 (top - 1) in the denominator and
        never below `SMALLEST`.

    Example
    -------
    >>> cohort_statistics(np.eye(2), np.array([[1.0, 0], [3, 0], [9, 1]]), 2)[0]
    array([6. , 0.5], dtype=float32)
    """
    vectors = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
    bank = torch.from_numpy(np.ascontiguousarray(cohort, np.float32))
    bank = bank.to(device).T
    rows = max(1, min(len(vectors), SCORES // len(cohort)))
    scores = torch.empty(rows, len(cohort), device=device)
    found = []
    for block in vectors.split(rows):
        part = torch.mm(block.to(device), bank, out=scores[: len(block)])
        if top is not None and top < len(cohort):
            part = _highest(part, top)
        found.append(torch.stack(torch.std_mean(part, dim=1)).cpu())
    deviation, mean = torch.cat(found, dim=1).numpy()
    return Statistics(mean, np.maximum(deviation, SMALLEST))


def _highest(scores, top):
    """The highest of each row, in any order; reorders CPU scores in place."""
    if scores.device.type != "cpu":
        return scores.topk(top, dim=1, sorted=False).values
    threads = torch.get_num_threads()
    first = scores.shape[1] - top
    # NumPy's selection is several times faster than torch's and runs
    # without the interpreter's lock.
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(scores.numpy(), threads)
        list(pool.map(lambda part: part.partition(first, axis=1), parts))
    return scores[:, first:]


def normalise(
    scores: np.ndarray, norm: str, enrol: Statistics, test: Statistics
) -> np.ndarray:
    """Scores in deviations from the cohort's mean.

    `z` uses the statistics of the enrolment model, `t` those of the test
    utterance, `s` the mean of both scores; `as` is `s` with statistics of
    the closest cohort members.

    Source: Auckenthaler, Carey, Lloyd-Thomas, "Score normalization for
    text-independent speaker verification systems", 2000; Matejka et al.,
    "Analysis of score normalization in multilingual speaker recognition",
    2017 (adaptive, each side its own closest members).

    Arguments
    ---------
    scores : numpy.ndarray
        (trials, C).
    norm : str
        `z`, `t`, `s` or `as`.
    enrol, test : Statistics
        Of each trial's sides, (trials, 1) and (trials, C).

    Returns
    -------
    numpy.ndarray
        (trials, C) float32.

    Example
    -------
    >>> one, two = Statistics(1.0, 2.0), Statistics(2.0, 1.0)
    >>> normalise(np.array([[3.0]]), "s", one, two)
    array([[1.]])
    """
    sides = {"z": [enrol], "t": [test]}.get(norm, [enrol, test])
    parts = [(scores - side.mean) / side.deviation for side in sides]
    return sum(parts) / len(parts)
