"""Costs of calibrated scores, convex hulls and intervals, the slow way."""

import math

import numpy as np
import pytest
from test_metrics import LISTS, counted_by_hand

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.intervals import speaker_intervals
from speechbrain_ssl.evaluation.metrics import (
    act_dcf,
    cllr,
    eer,
    min_cllr,
    min_dcf,
    threshold_at,
    verification_metrics,
)
from speechbrain_ssl.evaluation.ranking import BLOCK

EXACT = 1e-9


def hull(scores, targets):
    """Corners of the lower convex hull of (alarms, misses), alarms falling."""
    points = [(1.0, 0.0)]
    points += [(a, m) for a, m, _ in counted_by_hand(scores, targets)]
    corners = []
    for point in points:
        while len(corners) > 1:
            (a, b), (c, d) = corners[-2:]
            turn = (c - a) * (point[1] - b) - (d - b) * (point[0] - a)
            if turn < -1e-12:  # the middle point lies below the chord
                break
            corners.pop()
        corners.append(point)
    return corners


def test_min_dcf_is_reached_at_a_corner_of_the_convex_hull():
    for scores, targets in LISTS:
        corners = hull(scores, targets)
        costs = [0.01 * misses + 0.99 * alarms for alarms, misses in corners]
        value, _ = min_dcf(scores, targets)
        assert value == pytest.approx(min(costs) / 0.01, abs=EXACT)


def test_eer_is_at_least_that_of_the_hull_and_at_most_a_step_above_ties():
    for scores, targets in LISTS:
        highest = max(
            min(p * m + (1 - p) * a for a, m in hull(scores, targets))
            for p in np.linspace(0, 1, 201)
        )
        points = [(1.0, 0.0)]
        points += [(a, m) for a, m, _ in counted_by_hand(scores, targets)]
        step = max(
            max(a - c, d - b) for (a, b), (c, d) in zip(points, points[1:])
        )
        assert highest - step <= eer(scores, targets)[0] + EXACT


def test_min_cllr_is_that_of_the_slopes_of_the_hull():
    for scores, targets in LISTS:
        total = 0.0
        corners = hull(scores, targets)
        for (a, b), (c, d) in zip(corners, corners[1:]):
            own, other = d - b, a - c  # shares of each kind on this edge
            if own:
                total += own * math.log2(1 + other / own)
            if other:
                total += other * math.log2(1 + own / other)
        assert min_cllr(scores, targets) == pytest.approx(total / 2, abs=EXACT)


def test_cllr_and_act_dcf_are_those_counted_one_by_one():
    for scores, targets in LISTS:
        bits = [[], []]
        for score, target in zip(scores.tolist(), targets):
            odds = math.exp(-score if target else score)
            bits[int(target)].append(math.log2(1 + odds))
        expected = sum(sum(part) / len(part) for part in bits) / 2
        assert cllr(scores, targets) == pytest.approx(expected, abs=1e-6)
        threshold = math.log(0.9 * 2 / (0.1 * 3))
        wrong = [[], []]
        for score, target in zip(scores, targets):
            wrong[int(target)].append((score > threshold) != target)
        alarms, misses = (sum(part) / len(part) for part in wrong)
        cost = (3 * 0.1 * misses + 2 * 0.9 * alarms) / 0.3
        given = act_dcf(scores, targets, 0.1, c_miss=3, c_fa=2)
        assert given == pytest.approx(cost, abs=EXACT)


def test_costs_never_fall_below_their_least():
    for scores, targets in LISTS:
        assert act_dcf(scores, targets) >= min(1, min_dcf(scores, targets)[0])
        assert cllr(scores, targets) >= min_cllr(scores, targets) - EXACT


def test_threshold_at_a_rate_is_the_lowest_that_keeps_it():
    for scores, targets in LISTS:
        for rate in (0.0, 0.1, 0.5, 1.0):
            kept = [
                (threshold, misses)
                for alarms, misses, threshold in counted_by_hand(
                    scores, targets
                )
                if alarms <= rate
            ]
            assert threshold_at(scores, targets, rate) == pytest.approx(kept[0])
    with pytest.raises(BadInputError, match="between 0 and 1"):
        threshold_at([0.1, 0.2], [0, 1], 1.5)


@pytest.mark.parametrize("decimals", [1, 9])
def test_lists_of_several_blocks_are_counted_as_a_whole(decimals):
    draw = np.random.default_rng(8)
    targets = np.arange(5 * BLOCK) % 3 == 0
    scores = np.round(draw.normal(size=len(targets)) + targets, decimals)
    order = np.argsort(scores)
    last = np.append(np.diff(scores[order]) > 0, True)
    misses = np.cumsum(targets[order])[last] / targets.sum()
    alarms = 1 - np.cumsum(~targets[order])[last] / (~targets).sum()
    closest = abs(misses - alarms).argmin()
    metrics = verification_metrics(scores, targets)
    expected = (misses + alarms)[closest] / 2
    assert metrics["eer"] == pytest.approx(expected, abs=1e-4)
    cost = (misses + 99 * alarms).min()
    assert metrics["min_dcf"] == pytest.approx(cost, abs=EXACT)


def test_intervals_are_those_of_lists_with_copies_of_the_drawn_speakers():
    draw = np.random.default_rng(3)
    enrol, test = draw.integers(0, 5, (2, 60))
    targets = enrol == test
    scores = np.round(draw.normal(size=60) + targets, 1)
    draws, generator = [], np.random.default_rng(7)
    for _ in range(40):
        times = [0] * 5
        for speaker in generator.integers(5, size=5):
            times[speaker] += 1
        copies = [
            trial
            for trial in range(60)
            for _ in range(
                times[enrol[trial]]
                * (1 if targets[trial] else times[test[trial]])
            )
        ]
        if 0 < sum(targets[copies]) < len(copies):
            metrics = verification_metrics(scores[copies], targets[copies])
            draws.append((metrics["eer"], metrics["min_dcf"]))
    found = speaker_intervals(
        scores, targets, enrol, test, samples=40, confidence=0.8, seed=7
    )
    for name, values in zip(("eer", "min_dcf"), zip(*draws)):
        expected = np.quantile(values, [0.1, 0.9])
        assert found[name] == pytest.approx(expected, abs=0.02)


def test_speakers_that_do_not_fit_are_refused():
    with pytest.raises(BadInputError, match="3 enrolment and 2 test speakers"):
        speaker_intervals([0.1, 0.2], [0, 1], "abc", "ab")
    with pytest.raises(BadInputError, match="have 1 speaker"):
        speaker_intervals([0.1, 0.2], [0, 1], ["a", "a"], ["a", "a"])
