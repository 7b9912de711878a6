"""Error rates of a verification system from its scores, after one sort."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Union

import numpy as np
import torch

from speechbrain_ssl.checks import refuse

Scores = Union[np.ndarray, torch.Tensor, Sequence[float]]
Labels = Union[np.ndarray, torch.Tensor, Sequence[int]]
ADVICE = "Give one finite score and one label (1 target, 0 nontarget) a trial."


def eer(scores: Scores, targets: Labels) -> tuple[float, float]:
    """Equal error rate: where misses are as frequent as false alarms.

    A trial is accepted when its score is above the threshold, so equal scores
    are decided alike. Where no threshold makes the two rates equal, the value
    is their mean at the threshold where they are closest.

    Source: `speechbrain.utils.metric_stats.EER`, which gives the same value
    in a time that grows with the square of the number of trials.

    Arguments
    ---------
    scores : array, tensor or sequence of float, shape (trials,)
        Higher for the same speaker; any floating-point type.
    targets : array, tensor or sequence, shape (trials,)
        1 or True for a target trial, 0 or False for a nontarget trial.

    Returns
    -------
    value : float
        A fraction: 0 for no errors, 0.5 for chance.
    threshold : float
        The score where the value is taken.

    Raises
    ------
    BadInputError
        If there are no trials or only one kind, a score is not finite, a
        label is neither 0 nor 1, or the lengths differ.

    Example
    -------
    >>> eer([0.9, 0.7, 0.4, 0.6, 0.3, 0.2], [1, 1, 1, 0, 0, 0])
    (0.3333333333333333, 0.4)
    """
    return _equal_error(_count_errors(scores, targets))


def min_dcf(
    scores: Scores,
    targets: Labels,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    normalise: bool = True,
) -> tuple[float, float]:
    """Lowest detection cost that any threshold gives.

    The cost is `c_miss * p_target` times the miss rate plus `c_fa * (1 -
    p_target)` times the false-alarm rate. Normalised, 1 is the cost of the
    better of two systems that accept nothing or everything: the way papers
    print it.

    Source: `speechbrain.utils.metric_stats.minDCF`, which gives the same cost
    without the normalisation. As there, the lowest threshold is the lowest
    score, so accepting every trial is not considered; it would lower the
    value only where misses are dearer than false alarms.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `eer`.
    p_target : float
        Prior probability of a target trial, between 0 and 1; usual: 0.01 and
        0.05.
    c_miss, c_fa : float
        Cost of a miss and of a false alarm, above 0.
    normalise : bool
        Divide by `min(c_miss * p_target, c_fa * (1 - p_target))`.

    Returns
    -------
    value : float
    threshold : float
        The lowest score that gives the value.

    Raises
    ------
    BadInputError
        As for `eer`, and if a prior or cost is out of its range.

    Example
    -------
    >>> min_dcf([0.9, 0.2, 0.4, 0.1], [1, 1, 0, 0])
    (0.5, 0.4)
    """
    problems = []
    if not 0 < p_target < 1:
        problems.append(f"p_target is {p_target}; it is between 0 and 1")
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0 < cost < np.inf:
            problems.append(f"{name} is {cost}; it is above 0")
    refuse("detection cost", problems, "Correct these values.")
    weights = (c_miss * p_target, c_fa * (1 - p_target))
    value, threshold = _lowest_cost(_count_errors(scores, targets), *weights)
    return value / (min(weights) if normalise else 1), threshold


def det_points(
    scores: Scores, targets: Labels
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates of both errors at every distinct score, for a DET curve.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `eer`.

    Returns
    -------
    false_alarm_rates : numpy.ndarray, shape (distinct scores,)
        Nontarget trials above the threshold, as a fraction; falling to 0.
    miss_rates : numpy.ndarray, shape (distinct scores,)
        Target trials not above the threshold, as a fraction; rising to 1.
    thresholds : numpy.ndarray, shape (distinct scores,)
        The distinct scores, rising.

    Raises
    ------
    BadInputError
        As for `eer`.

    Example
    -------
    >>> det_points([3.0, 2.0, 2.0], [1, 1, 0])[:2]
    (array([0., 0.]), array([0.5, 1. ]))
    """
    counts = _count_errors(scores, targets)
    return (
        counts.false_alarms / counts.nontargets,
        counts.misses / counts.targets,
        counts.thresholds,
    )


def verification_metrics(
    scores: Scores, targets: Labels
) -> dict[str, Union[float, int]]:
    """EER and normalised minDCF (prior 0.01, costs 1) from one sort.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `eer`.

    Returns
    -------
    dict
        `eer`, `eer_threshold`, `min_dcf`, `min_dcf_threshold` as float (rates
        as fractions), `targets` and `nontargets` as int.

    Raises
    ------
    BadInputError
        As for `eer`.

    Example
    -------
    >>> metrics = verification_metrics([0.8, 0.1, 0.2], [1, 0, 0])
    >>> metrics["eer"], metrics["min_dcf"], metrics["nontargets"]
    (0.0, 0.0, 2)
    """
    counts = _count_errors(scores, targets)
    equal, equal_threshold = _equal_error(counts)
    cost, cost_threshold = _lowest_cost(counts, 0.01, 0.99)
    return {
        "eer": equal,
        "eer_threshold": equal_threshold,
        "min_dcf": cost / 0.01,
        "min_dcf_threshold": cost_threshold,
        "targets": counts.targets,
        "nontargets": counts.nontargets,
    }


class _Counts(NamedTuple):
    """Errors at every distinct score, and the trials they are out of."""

    thresholds: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray
    targets: int
    nontargets: int


def _count_errors(scores: Scores, targets: Labels) -> _Counts:
    scores, targets = _checked(scores, targets)
    own, other = np.sort(scores[targets]), np.sort(scores[~targets])
    ranked = np.concatenate([own, other])
    ranked.sort(kind="stable")  # merges the two sorted parts in linear time
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    thresholds = ranked[last]
    # int32 halves the memory of lists of many millions of trials.
    last += 1
    rejected = last.astype(np.int32)
    del ranked, last
    misses = np.searchsorted(own, thresholds, side="right").astype(np.int32)
    false_alarms = len(other) - (rejected - misses)
    return _Counts(thresholds, misses, false_alarms, len(own), len(other))


def _equal_error(counts: _Counts) -> tuple[float, float]:
    # The rates fall and rise, so they are closest on either side of where
    # they cross. Rounding to float32 and the comparison are SpeechBrain's:
    # they decide which of two equally close thresholds is taken.
    alarms = counts.false_alarms.astype(np.float32)
    alarms /= np.float32(counts.nontargets)
    misses = counts.misses.astype(np.float32) / np.float32(counts.targets)
    best = max(np.count_nonzero(alarms >= misses) - 1, 0)
    if best + 1 < len(misses):
        gap = abs(float(alarms[best]) - float(misses[best]))
        best += float(abs(alarms[best + 1] - misses[best + 1])) < gap
    false_alarm_rate = int(counts.false_alarms[best]) / counts.nontargets
    miss_rate = int(counts.misses[best]) / counts.targets
    value = (false_alarm_rate + miss_rate) / 2
    return value, float(counts.thresholds[best])


def _lowest_cost(
    counts: _Counts, miss_weight: float, alarm_weight: float
) -> tuple[float, float]:
    costs = counts.misses * (miss_weight / counts.targets)
    costs += counts.false_alarms * (alarm_weight / counts.nontargets)
    best = np.argmin(costs)
    return float(costs[best]), float(counts.thresholds[best])


def _checked(scores: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float32 or float64 and targets as bool, both (trials,)."""
    scores, targets = _as_array(scores), _as_array(targets)
    problems = []
    if scores.ndim != 1 or scores.shape != targets.shape:
        problems.append(
            f"scores have the shape {scores.shape} and targets "
            f"{targets.shape}; both are (trials,)"
        )
    elif not len(scores):
        problems.append("there are no trials")
    refuse("scores and targets", problems, ADVICE)
    if not np.isfinite(scores).all():
        faulty = np.flatnonzero(~np.isfinite(scores))
        problems.append(
            f"{len(faulty)} of {len(scores)} scores are not finite; the first "
            f"is {scores[faulty[0]]} at index {faulty[0]}"
        )
    is_target = targets == 1
    faulty = np.flatnonzero(~is_target & (targets != 0))
    if len(faulty):
        problems.append(
            f"{len(faulty)} of {len(targets)} targets are neither 0 nor 1; the "
            f"first is {targets[faulty[0]]} at index {faulty[0]}"
        )
    elif is_target.all() or not is_target.any():
        kind = "nontarget" if is_target.all() else "target"
        problems.append(f"none of {len(targets)} trials is a {kind} trial")
    refuse("scores and targets", problems, ADVICE)
    return scores, is_target


def _as_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:  # NumPy has no such type
            values = values.float()
    values = np.asarray(values)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    if values.size and values.dtype.kind not in "biuf":
        problem = f"values of the type {values.dtype} were given"
        refuse("scores and targets", [problem], ADVICE)
    return values
