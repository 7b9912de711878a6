"""Trials in the order of their scores: what every error rate counts on."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Union

import numpy as np
import torch

from speechbrain_ssl.checks import refuse

ADVICE = "Give one finite score and one label (1 target, 0 nontarget) a trial."
BLOCK = 1 << 12  # scores of a kind counted at a time: they stay in the cache


class Points(NamedTuple):
    """Errors at rising distinct scores.

    Arguments
    ---------
    thresholds : numpy.ndarray
        (P,) distinct scores.
    misses : numpy.ndarray
        (P,) target trials not above each.
    false_alarms : numpy.ndarray
        (P,) nontarget trials above each.
    """

    thresholds: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray


class Ranking:
    """Checked scores, sorted once, target and nontarget trials apart.

    Arguments
    ---------
    scores : array, tensor or sequence of float, shape (trials,)
        Any floating-point type.
    targets : array, tensor or sequence, shape (trials,)
        1 or True for a target trial, 0 or False for a nontarget trial.

    Raises
    ------
    BadInputError
        If there are no trials or only one kind, a score is not finite, a
        label is neither 0 nor 1, or the lengths differ.

    Example
    -------
    >>> [points] = Ranking([0.3, 0.1, 0.3], [1, 0, 0]).blocks()
    >>> points.thresholds, points.misses, points.false_alarms
    (array([0.1, 0.3]), array([0, 1]), array([1, 0]))
    """

    def __init__(self, scores: Any, targets: Any):
        scores, is_target = checked(scores, targets)
        self.targets, self.nontargets = scores[is_target], scores[~is_target]
        self.targets.sort()
        self.nontargets.sort()

    def blocks(self) -> Iterator[Points]:
        """Points at every distinct score, a block at a time.

        Yields
        ------
        Points
            Thresholds rise from block to block.
        """
        ends = [part[BLOCK - 1 :: BLOCK] for part in self._parts()]
        tops = [part[-1:] for part in self._parts()]
        ends = np.unique(np.concatenate(ends + tops))
        edges = [part.searchsorted(ends, "right") for part in self._parts()]
        starts = (0, 0)
        for stops in zip(*edges):
            own, other = (
                part[start:stop]
                for part, start, stop in zip(self._parts(), starts, stops)
            )
            both = np.concatenate([own, other])
            both.sort(kind="stable")  # merges two sorted runs in linear time
            new = np.append(True, both[1:] != both[:-1])
            thresholds = both[new]
            rejected = np.append(np.flatnonzero(new)[1:], len(both))
            fewer = own if len(own) < len(other) else other
            counts = np.bincount(
                thresholds.searchsorted(fewer), minlength=len(thresholds)
            ).cumsum()
            misses = counts if fewer is own else rejected - counts
            passed = len(self.nontargets) - starts[1] - (rejected - misses)
            yield Points(thresholds, misses + starts[0], passed)
            starts = stops

    def points(self) -> Points:
        """Points at every distinct score, together."""
        return Points(*map(np.concatenate, zip(*self.blocks())))

    def _parts(self):
        return self.targets, self.nontargets


def scan(
    ranking: Ranking, miss_weight: float = 1.0, alarm_weight: float = 1.0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Equal error rate and lowest cost, each with its threshold.

    Arguments
    ---------
    ranking : Ranking
        The scores.
    miss_weight, alarm_weight : float
        Of the two rates in the cost.

    Returns
    -------
    equal, lowest : (float, float)
        Value and threshold of each.

    Example
    -------
    >>> scan(Ranking([0.9, 0.2, 0.4, 0.1], [1, 1, 0, 0]))
    ((0.5, 0.2), (0.5, 0.1))
    """
    targets, nontargets = len(ranking.targets), len(ranking.nontargets)
    below = above = None  # points on either side of where the rates cross
    lowest = (np.inf, 0.0)
    for points in ranking.blocks():
        costs = points.misses * (miss_weight / targets)
        costs += points.false_alarms * (alarm_weight / nontargets)
        best = costs.argmin()
        if costs[best] < lowest[0]:
            lowest = float(costs[best]), float(points.thresholds[best])
        if above is None:
            # Rates and the second gap in float32 are SpeechBrain's: they
            # decide which of two equally close thresholds is taken.
            alarms = points.false_alarms.astype(np.float32)
            alarms /= np.float32(nontargets)
            misses = points.misses.astype(np.float32) / np.float32(targets)
            crossing = np.count_nonzero(alarms >= misses)
            if crossing:
                last = crossing - 1
                gap = abs(float(alarms[last]) - float(misses[last]))
                below = gap, *_point(points, last)
            if crossing < len(misses):
                gap = abs(alarms[crossing] - misses[crossing])
                above = float(gap), *_point(points, crossing)
    if above is None or (below is not None and not above[0] < below[0]):
        above = below
    _, false_alarms, misses, threshold = above
    value = (false_alarms / nontargets + misses / targets) / 2
    return (value, threshold), lowest


def checked(scores: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float32 or float64 and targets as bool, both (trials,).

    Raises
    ------
    BadInputError
        As for `Ranking`.

    Example
    -------
    >>> checked([1.0, 2.0], [0, 1])
    (array([1., 2.]), array([False,  True]))
    """
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
    # One sum instead of a mask: only NaN and infinities make it not finite,
    # or an overflow, which the closer look then finds to be none.
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.isfinite(scores.sum())
    if not whole and not np.isfinite(scores).all():
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


def _as_array(values: Any) -> Union[np.ndarray, Any]:
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


def _point(points: Points, place: int) -> tuple[int, int, float]:
    counts = points.false_alarms[place], points.misses[place]
    return *map(int, counts), float(points.thresholds[place])
