"""Error rates against slow counting, SpeechBrain and lists made by hand."""

import numpy as np
import pytest
import torch
from speechbrain.utils.metric_stats import EER, minDCF

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.metrics import (
    det_points,
    eer,
    min_dcf,
    verification_metrics,
)

EXACT = 1e-12  # both sides are a few float64 operations on counts
SPEECHBRAIN = 1e-6  # its rates are float32


def counted_by_hand(scores, targets):
    """Rates at each distinct score, one trial at a time."""
    own = [s for s, t in zip(scores, targets) if t]
    other = [s for s, t in zip(scores, targets) if not t]
    points = []
    for threshold in sorted({float(score) for score in scores}):
        alarms = sum(1 for score in other if score > threshold)
        misses = sum(1 for score in own if not score > threshold)
        points.append((alarms / len(other), misses / len(own), threshold))
    return points


def drawn(seed, trials, kind):
    """float32 scores with more or fewer ties, and labels of both kinds."""
    generator = np.random.default_rng(seed)
    targets = generator.random(trials) < 0.4
    targets[:2] = [True, False]
    scores = generator.standard_normal(trials) + targets
    decimals = {"no ties": 9, "some ties": 1, "heavy ties": 0}[kind]
    return np.round(scores, decimals).astype(np.float32), targets


LISTS = [
    drawn(seed, trials, kind)
    for seed, trials in enumerate([2, 3, 4, 5, 7, 8, 12, 30, 100, 257])
    for kind in ("no ties", "some ties", "heavy ties")
]


def test_rates_at_every_distinct_score_are_those_counted_one_by_one():
    assert len(LISTS) == 30
    for scores, targets in LISTS:
        points = np.array(counted_by_hand(scores, targets)).T
        for given, expected in zip(det_points(scores, targets), points):
            np.testing.assert_allclose(given, expected, rtol=0, atol=EXACT)


def test_eer_is_the_mean_where_the_counted_rates_are_closest():
    for scores, targets in LISTS:
        points = counted_by_hand(scores, targets)
        gap = min(abs(alarms - misses) for alarms, misses, _ in points)
        # Two thresholds can be equally close: either is a right answer here.
        closest = [
            ((alarms + misses) / 2, threshold)
            for alarms, misses, threshold in points
            if abs(alarms - misses) < gap + EXACT
        ]
        assert eer(scores, targets) in [pytest.approx(c) for c in closest]


def test_min_dcf_is_the_lowest_counted_cost():
    for scores, targets in LISTS:
        for p_target, c_miss, c_fa in (
            (0.01, 1, 1),
            (0.05, 10, 1),
            (0.9, 1, 2),
        ):
            costs = [
                c_miss * p_target * misses + c_fa * (1 - p_target) * alarms
                for alarms, misses, _ in counted_by_hand(scores, targets)
            ]
            expected = min(costs) / min(
                c_miss * p_target, c_fa * (1 - p_target)
            )
            value, _ = min_dcf(scores, targets, p_target, c_miss, c_fa)
            assert value == pytest.approx(expected, abs=EXACT)


def test_min_dcf_threshold_is_the_lowest_one_that_gives_the_value():
    scores, targets = [0.9, 0.2, 0.2, 0.4, 0.1], [1, 1, 1, 0, 0]
    assert min_dcf(scores, targets, p_target=0.5) == (0.5, 0.1)


@pytest.mark.parametrize(("trials", "lists"), [(5, 200), (40, 50), (400, 5)])
@pytest.mark.parametrize("kind", ["no ties", "some ties", "heavy ties"])
def test_values_are_speechbrains_to_one_in_a_million(trials, lists, kind):
    for seed in range(lists):
        scores, targets = drawn(1000 + seed, trials, kind)
        pair = torch.tensor(scores[targets]), torch.tensor(scores[~targets])
        value, _ = eer(scores, targets)
        assert value == pytest.approx(EER(*pair)[0], abs=SPEECHBRAIN)
        cost, _ = minDCF(*pair, p_target=0.05)
        value, _ = min_dcf(scores, targets, p_target=0.05)
        assert value == pytest.approx(cost / 0.05, abs=SPEECHBRAIN)
        value, _ = min_dcf(scores, targets, 0.05, normalise=False)
        assert value == pytest.approx(cost, abs=SPEECHBRAIN)


def test_of_two_equally_close_thresholds_the_one_of_speechbrain_is_taken():
    # 0.5 - 1/6 = 5/6 - 0.5, but not in float32: the second comes out closer.
    scores = np.array([-1, -1, 0, 0, 0, 0, 1, 2], dtype=np.float32)
    targets = np.array([0, 1, 1, 1, 1, 1, 0, 1], dtype=bool)
    expected, threshold = EER(
        torch.tensor(scores[targets]), torch.tensor(scores[~targets])
    )
    value, own_threshold = eer(scores, targets)
    assert value == pytest.approx(expected, abs=SPEECHBRAIN)
    assert own_threshold == threshold


def test_thresholds_are_speechbrains_when_scores_separate_the_kinds():
    scores, targets = (
        [0.6, 0.7, 0.8, 0.5, 0.4, 0.3, 0.2, 0.1],
        [1] * 4 + [0] * 4,
    )
    pair = torch.tensor(scores[:4]), torch.tensor(scores[4:])
    assert eer(np.float32(scores), targets) == EER(*pair)
    assert min_dcf(np.float32(scores), targets) == minDCF(*pair)


def test_a_list_made_by_hand_has_the_eer_read_off_it():
    # One of four targets lies below one of four nontargets.
    scores = [0.9, 0.8, 0.7, 0.3, 0.4, 0.2, 0.1, 0.0]
    assert eer(scores, [1, 1, 1, 1, 0, 0, 0, 0]) == (0.25, 0.3)


def test_reversed_scores_turn_the_eer_round():
    scores, targets = drawn(0, 501, "no ties")
    value, _ = eer(scores, targets)
    # One step of the rates at most, since ">" is not symmetric.
    assert eer(-scores, targets)[0] == pytest.approx(1 - value, abs=0.01)


def test_equal_scores_are_chance():
    metrics = verification_metrics(np.zeros(10), [1, 0] * 5)
    assert (metrics["eer"], metrics["min_dcf"]) == (0.5, 1.0)


def test_order_of_trials_does_not_matter():
    scores, targets = drawn(3, 300, "some ties")
    order = np.random.default_rng(0).permutation(300)
    shuffled = verification_metrics(scores[order], targets[order])
    assert shuffled == verification_metrics(scores, targets)


def test_metrics_together_are_those_one_by_one():
    scores, targets = drawn(4, 300, "some ties")
    metrics = verification_metrics(scores, targets)
    assert (metrics["eer"], metrics["eer_threshold"]) == eer(scores, targets)
    assert (metrics["min_dcf"], metrics["min_dcf_threshold"]) == min_dcf(
        scores, targets
    )
    assert metrics["targets"] == targets.sum()
    assert metrics["nontargets"] == (~targets).sum()
    assert {type(value) for value in metrics.values()} == {float, int}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_any_floating_type_gives_the_metrics_of_its_values(dtype):
    scores, targets = drawn(5, 400, "no ties")
    tensor = torch.tensor(scores, requires_grad=True).to(getattr(torch, dtype))
    expected = verification_metrics(tensor.detach().double().numpy(), targets)
    assert verification_metrics(tensor, torch.tensor(targets)) == expected
    if dtype != "bfloat16":  # NumPy has no such type
        array = tensor.detach().numpy()
        assert verification_metrics(array, targets) == expected


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "float32"])
def test_labels_of_any_type_of_zeros_and_ones_are_taken(dtype):
    scores, targets = drawn(6, 50, "some ties")
    expected = verification_metrics(scores, targets)
    labels = targets.astype(dtype)
    for form in (labels, labels.tolist(), torch.tensor(labels)):
        assert verification_metrics(scores.tolist(), form) == expected


def test_float64_scores_closer_than_float32_can_tell_are_kept_apart():
    assert eer([1.0, 1.0 + 1e-12], [0, 1])[0] == 0.0


def test_det_rates_fall_and_rise_to_the_end_of_the_list():
    alarms, misses, thresholds = det_points(*drawn(7, 300, "some ties"))
    assert (np.diff(thresholds) > 0).all()
    assert (np.diff(alarms) <= 0).all() and (np.diff(misses) >= 0).all()
    assert (alarms[-1], misses[-1]) == (0, 1)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([], [], "there are no trials"),
        ([0.1, 0.2], [1, 1], "none of 2 trials is a nontarget trial"),
        ([0.1, 0.2], [0, 0], "none of 2 trials is a target trial"),
        ([0.1, 0.2], [1, 0, 0], r"shape \(2,\) and targets \(3,\)"),
        ([[0.1], [0.2]], [[1], [0]], r"both are \(trials,\)"),
        ([0.1, 0.2, 0.3], [0, 1, 2], "1 of 3 targets .* is 2 at index 2"),
        (
            [0.1, np.nan, np.inf],
            [0, 1, 1],
            "2 of 3 scores are not finite; the first is nan at index 1",
        ),
        (["a", "b"], [0, 1], "values of the type <U1"),
    ],
)
@pytest.mark.parametrize(
    "function", [eer, min_dcf, det_points, verification_metrics]
)
def test_unusable_scores_and_labels_are_refused(
    function, scores, targets, message
):
    with pytest.raises(BadInputError, match=message):
        function(scores, targets)


def test_problems_of_scores_and_labels_come_in_one_message():
    with pytest.raises(BadInputError, match="2 problems"):
        eer([np.nan, 0.2], [0, 3])


@pytest.mark.parametrize(
    ("name", "value"),
    [("p_target", 0), ("p_target", 1), ("c_miss", 0), ("c_fa", -1)],
)
def test_priors_and_costs_out_of_range_are_refused(name, value):
    with pytest.raises(BadInputError, match=f"{name} is {value}"):
        min_dcf([0.1, 0.2], [0, 1], **{name: value})
