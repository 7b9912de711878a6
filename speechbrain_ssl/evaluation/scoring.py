"""Scores of trials from tables of embeddings."""

from typing import Optional, Protocol

import numpy as np
import torch

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.embed import Embeddings
from speechbrain_ssl.evaluation.normalisation import (
    NORMS,
    Statistics,
    cohort_statistics,
    normalise,
)

RULES = ("loudest", "best")
BLOCK = 2048  # trials whose vectors are gathered at a time: in the cache


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one.

    Arguments
    ---------
    vectors : numpy.ndarray
        (..., D).

    Returns
    -------
    numpy.ndarray
        (..., D); a zero vector stays zero.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def loudest(embeddings: Embeddings) -> np.ndarray:
    """The vector of each utterance's loudest slot.

    Arguments
    ---------
    embeddings : Embeddings
        N utterances.

    Returns
    -------
    numpy.ndarray
        (N, D), of any length.
    """
    slots = embeddings.energies.argmax(1)
    return embeddings.vectors[np.arange(len(slots)), slots]


def pair_scores(
    models: np.ndarray,
    slots: np.ndarray,
    enrol_rows: np.ndarray,
    test_rows: np.ndarray,
) -> np.ndarray:
    """Inner product of a model with every slot of a test, for each trial.

    Where trials are half or more of all pairs (CN-Celeb: all), one matrix
    product serves them; otherwise vectors are gathered trial by trial, a
    block at a time.

    Arguments
    ---------
    models : numpy.ndarray
        (N, D) float32.
    slots : numpy.ndarray
        (M, C, D) float32.
    enrol_rows, test_rows : numpy.ndarray
        (trials,) rows of the two.

    Returns
    -------
    numpy.ndarray
        (trials, C) float32.

    Example
    -------
    >>> vectors = np.eye(2, dtype=np.float32)
    >>> pair_scores(vectors, vectors[:, None], [0, 0], [0, 1])
    array([[1.],
           [0.]], dtype=float32)
    """
    enrol_rows, test_rows = np.asarray(enrol_rows), np.asarray(test_rows)
    scores = np.empty((len(enrol_rows), slots.shape[1]), np.float32)
    used, enrol = _renumbered(enrol_rows, len(models))
    met, test = _renumbered(test_rows, len(slots))
    if len(used) * len(met) <= 2 * len(scores):
        for slot in range(slots.shape[1]):
            table = models[used] @ slots[met, slot].T
            scores[:, slot] = table[enrol, test]
        return scores
    one = np.empty((BLOCK, models.shape[1]), np.float32)
    two = np.empty((BLOCK, *slots.shape[1:]), np.float32)
    for first in range(0, len(scores), BLOCK):
        part = slice(first, first + BLOCK)
        n = len(scores[part])
        # mode="clip" lets `take` write without a copy of its own.
        models.take(enrol_rows[part], 0, out=one[:n], mode="clip")
        slots.take(test_rows[part], 0, out=two[:n], mode="clip")
        np.einsum("nd,ncd->nc", one[:n], two[:n], out=scores[part])
    return scores


def _renumbered(rows, size):
    """Rows that occur, and the place of each row among them."""
    occurs = np.zeros(size, bool)
    occurs[rows] = True
    return np.flatnonzero(occurs), (occurs.cumsum(dtype=np.int32) - 1)[rows]


class Backend(Protocol):
    """Vectors of both sides whose inner product is the score.

    Embeddings may have any length, so recordings are averaged as `prepare`
    makes them: centred where the backend centres, then of length one.
    """

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """(..., D) embeddings to what their means are taken of."""

    def restore(self, prepared: np.ndarray) -> np.ndarray:
        """To embeddings that `prepare` takes there again, up to length."""

    def enrol(self, vectors: np.ndarray) -> np.ndarray:
        """(..., D) embeddings to vectors of enrolment models."""

    def test(self, vectors: np.ndarray) -> np.ndarray:
        """(..., D) embeddings to vectors of test utterances."""


class Cosine:
    """Cosine of embeddings, a mean subtracted where one is given.

    Arguments
    ---------
    mean : numpy.ndarray, optional
        (D,), for example that of the cohort.

    Example
    -------
    >>> Cosine(mean=np.array([1.0, 0.0])).enrol(np.array([[1.0, 2.0]]))
    array([[0., 1.]])
    """

    def __init__(self, mean: Optional[np.ndarray] = None):
        self.mean = mean

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """Unit vectors."""
        return unit(vectors if self.mean is None else vectors - self.mean)

    enrol = test = prepare

    def restore(self, prepared: np.ndarray) -> np.ndarray:
        """(..., D) embeddings."""
        return prepared if self.mean is None else prepared + self.mean


class Scorer:
    """A backend and a score normalisation: tables and trials to scores.

    Arguments
    ---------
    backend : Backend, optional
        By default the cosine.
    norm : str
        One of `normalisation.NORMS`.
    cohort : numpy.ndarray, optional
        (K, D) embeddings of other speakers; needed with a norm.
    top : int
        Closest of the cohort that adaptive s-norm uses; 200 to 400 of some
        thousand speakers is usual.
    device : str or torch.device
        Where the cohort's scores are computed.

    Raises
    ------
    BadInputError
        If the norm is unknown, its cohort missing, or smaller than `top`.

    Example
    -------
    >>> vectors = np.eye(2, dtype=np.float32)[:, None]
    >>> table = Embeddings(vectors, np.ones((2, 1)))
    >>> Scorer()(table, table, np.array([0, 0]), np.array([0, 1]), "best")
    array([1., 0.], dtype=float32)
    """

    def __init__(
        self,
        backend: Optional[Backend] = None,
        norm: str = "none",
        cohort: Optional[np.ndarray] = None,
        top: int = 300,
        device: torch.device = "cpu",
    ):
        problems = []
        if norm not in NORMS:
            problems.append(f"'{norm}' was given; it is one of {NORMS}")
        elif norm != "none" and cohort is None:
            problems.append(f"'{norm}' needs a cohort")
        elif norm == "as" and not 1 < top <= len(cohort):
            problems.append(
                f"the cohort has {len(cohort)} members, the {top} closest are "
                "asked for; it is 2 or more and no more than the cohort has"
            )
        refuse("score normalisation", problems, "Change it or the cohort.")
        self.backend, self.norm = backend or Cosine(), norm
        self.cohort, self.device = cohort, device
        self.top = top if norm == "as" else None
        self._enrolled = None, None  # the last table and its statistics

    def __call__(
        self,
        enrol: Embeddings,
        test: Embeddings,
        enrol_rows: np.ndarray,
        test_rows: np.ndarray,
        rule: str,
    ) -> np.ndarray:
        """One score a trial.

        The enrolment is one talker: its loudest slot counts. Of the test
        utterance either the `loudest` slot counts (one talker) or the `best`,
        the highest score over all slots (mixtures). Both are the same for
        encoders that do not separate.

        Arguments
        ---------
        enrol, test : Embeddings
            Tables of N and M utterances.
        enrol_rows, test_rows : numpy.ndarray
            (trials,) row numbers of the two tables.
        rule : str
            `loudest` or `best`.

        Returns
        -------
        numpy.ndarray
            (trials,) float32.

        Raises
        ------
        ValueError
            If the rule is neither of the two.
        BadInputError
            If the embeddings differ in their dimension.
        """
        if rule not in RULES:
            raise ValueError(f"rule is '{rule}'; it is one of {RULES}")
        models = loudest(enrol)
        slots = loudest(test)[:, None] if rule == "loudest" else test.vectors
        self._check(models, slots)
        models, slots = self.backend.enrol(models), self.backend.test(slots)
        scores = pair_scores(models, slots, enrol_rows, test_rows)
        if self.norm != "none":
            scores = normalise(
                scores,
                self.norm,
                self._of_enrolment(enrol, models).take(enrol_rows),
                self.statistics(slots, "test").take(test_rows),
            )
        return scores.max(1)

    def _of_enrolment(self, enrol, models):
        """Statistics of a table that several conditions share, once."""
        if self._enrolled[0] is not enrol:
            self._enrolled = enrol, self.statistics(models, "enrol")
        return self._enrolled[1]

    def statistics(self, vectors: np.ndarray, side: str) -> Statistics:
        """Cohort statistics of vectors that the backend made.

        Arguments
        ---------
        vectors : numpy.ndarray
            (N, D) models or (M, C, D) slots.
        side : str
            Theirs, `enrol` or `test`; the cohort takes the other.

        Returns
        -------
        Statistics
            (N, 1) or (M, C).
        """
        against = self.backend.test if side == "enrol" else self.backend.enrol
        flat = vectors.reshape(-1, vectors.shape[-1])
        found = cohort_statistics(
            flat, against(self.cohort), self.top, self.device
        )
        shape = len(vectors), len(flat) // max(1, len(vectors))
        return Statistics(*(part.reshape(shape) for part in found))

    def _check(self, models, slots):
        sizes = {
            "enrolment": models.shape[-1],
            "test": slots.shape[-1],
        }
        if self.cohort is not None:
            sizes["cohort"] = self.cohort.shape[-1]
        given = ", ".join(f"{name} {size}" for name, size in sizes.items())
        problem = f"the embeddings have several dimensions: {given}"
        refuse(
            "embeddings",
            [problem] if len(set(sizes.values())) > 1 else [],
            "Make all of them with one model.",
        )


def cosine_scores(
    enrol: Embeddings,
    test: Embeddings,
    enrol_rows: np.ndarray,
    test_rows: np.ndarray,
    rule: str,
) -> np.ndarray:
    """Cosine of enrolment and test utterances; `Scorer` without options."""
    return Scorer()(enrol, test, enrol_rows, test_rows, rule)
