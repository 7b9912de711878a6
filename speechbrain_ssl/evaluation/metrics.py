"""Error rates of a verification system from its scores, after one sort."""

from collections.abc import Sequence
from typing import Union

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.ranking import Ranking, checked, scan

Scores = Union[np.ndarray, torch.Tensor, Sequence[float]]
Labels = Union[np.ndarray, torch.Tensor, Sequence[int]]


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
    return scan(Ranking(scores, targets))[0]


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
    weights = _weights(p_target, c_miss, c_fa)
    _, (value, threshold) = scan(Ranking(scores, targets), *weights)
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
    ranking = Ranking(scores, targets)
    points = ranking.points()
    return (
        points.false_alarms / len(ranking.nontargets),
        points.misses / len(ranking.targets),
        points.thresholds,
    )


def act_dcf(
    ratios: Scores,
    targets: Labels,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    normalise: bool = True,
) -> float:
    """Detection cost at the threshold that calibrated scores should have.

    The threshold is `log(c_fa * (1 - p_target) / (c_miss * p_target))`. What
    lies between this cost and `min_dcf` is lost by poor calibration.

    Arguments
    ---------
    ratios : array, tensor or sequence of float, shape (trials,)
        Log-likelihood ratios, natural logarithm.
    targets, p_target, c_miss, c_fa, normalise
        As for `min_dcf`.

    Returns
    -------
    float
        Above 1, normalised, where accepting or rejecting all would be better.

    Raises
    ------
    BadInputError
        As for `min_dcf`.

    Example
    -------
    >>> act_dcf([5.0, 3.0, 1.0, -1.0], [1, 1, 0, 0], p_target=0.05)
    0.0
    """
    weights = _weights(p_target, c_miss, c_fa)
    ratios, targets = checked(ratios, targets)
    accepted = ratios > np.log(weights[1] / weights[0])
    cost = weights[0] * np.mean(~accepted[targets])
    cost += weights[1] * np.mean(accepted[~targets])
    return float(cost / (min(weights) if normalise else 1))


def cllr(ratios: Scores, targets: Labels) -> float:
    """Cost of log-likelihood ratios over all priors, in bits.

    Source: Brummer, du Preez, "Application-independent evaluation of speaker
    detection", 2006.

    Arguments
    ---------
    ratios : array, tensor or sequence of float, shape (trials,)
        Log-likelihood ratios, natural logarithm.
    targets : array, tensor or sequence, shape (trials,)
        As for `eer`.

    Returns
    -------
    float
        0 for certainty without errors, 1 for ratios that say nothing.

    Raises
    ------
    BadInputError
        As for `eer`.

    Example
    -------
    >>> cllr([0.0, 0.0], [1, 0])
    1.0
    """
    ratios, targets = checked(ratios, targets)
    ratios = ratios.astype(np.float64)
    misses = np.logaddexp(0, -ratios[targets]).mean()
    alarms = np.logaddexp(0, ratios[~targets]).mean()
    return float((misses + alarms) / (2 * np.log(2)))


def min_cllr(scores: Scores, targets: Labels) -> float:
    """`cllr` after the best rising map of scores to log-likelihood ratios.

    The map is found by pooling adjacent violators, equal scores together;
    its steps are the edges of the ROC's convex hull.

    Source: Brummer, du Preez 2006.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `eer`.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    BadInputError
        As for `eer`.

    Example
    -------
    >>> min_cllr([3.0, 2.0, -5.0], [1, 1, 0]), min_cllr([0.3, 0.3], [1, 0])
    (0.0, 1.0)
    """
    ranking = Ranking(scores, targets)
    _, misses, false_alarms = ranking.points()
    own, other = len(ranking.targets), len(ranking.nontargets)
    own_here = np.diff(misses, prepend=0)
    other_here = -np.diff(false_alarms, prepend=other)
    here = own_here + other_here
    shares = isotonic_regression(own_here / here, weights=here).x
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shares / (1 - shares) * (other / own)
        missed = np.where(own_here, own_here * np.log2(1 + 1 / ratio), 0)
        passed = np.where(other_here, other_here * np.log2(1 + ratio), 0)
    return float(missed.sum() / own + passed.sum() / other) / 2


def threshold_at(
    scores: Scores, targets: Labels, false_alarm_rate: float
) -> tuple[float, float]:
    """Lowest threshold that lets no more than a share of nontargets through.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `eer`.
    false_alarm_rate : float
        Largest share of nontarget trials above the threshold, 0 to 1.

    Returns
    -------
    threshold : float
        A trial is accepted above it.
    miss_rate : float
        What it costs.

    Raises
    ------
    BadInputError
        As for `eer`, and if the rate is outside 0 to 1.

    Example
    -------
    >>> threshold_at([0.9, 0.2, 0.4, 0.1], [1, 1, 0, 0], 0.5)
    (0.1, 0.0)
    """
    problem = f"{false_alarm_rate} was given; it lies between 0 and 1"
    within = 0 <= false_alarm_rate <= 1
    refuse("false_alarm_rate", [] if within else [problem], "Correct it.")
    alarms, misses, thresholds = det_points(scores, targets)
    # The rates fall; the last one, at the highest score, is 0.
    first = len(alarms) - alarms[::-1].searchsorted(false_alarm_rate, "right")
    return float(thresholds[first]), float(misses[first])


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
    ranking = Ranking(scores, targets)
    equal, lowest = scan(ranking, *_weights(0.01, 1.0, 1.0))
    return {
        "eer": equal[0],
        "eer_threshold": equal[1],
        "min_dcf": lowest[0] / 0.01,
        "min_dcf_threshold": lowest[1],
        "targets": len(ranking.targets),
        "nontargets": len(ranking.nontargets),
    }


def _weights(p_target: float, c_miss: float, c_fa: float):
    """Weights of the miss and of the false-alarm rate in the cost."""
    problems = []
    if not 0 < p_target < 1:
        problems.append(f"p_target is {p_target}; it is between 0 and 1")
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0 < cost < np.inf:
            problems.append(f"{name} is {cost}; it is above 0")
    refuse("detection cost", problems, "Correct these values.")
    return c_miss * p_target, c_fa * (1 - p_target)
