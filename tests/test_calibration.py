"""Calibration, quality measures, groups of trials, aggregated enrolment."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.breakdown import (
    breakdown,
    read_metadata,
    trial_groups,
)
from speechbrain_ssl.evaluation.calibration import (
    fit_calibration,
    read_calibration,
)
from speechbrain_ssl.evaluation.embed import Embeddings
from speechbrain_ssl.evaluation.enrolment import Setting, enrol_models
from speechbrain_ssl.evaluation.metrics import cllr, verification_metrics
from speechbrain_ssl.evaluation.quality import quality_measures
from speechbrain_ssl.evaluation.scoring import Scorer
from speechbrain_ssl.evaluation.verification import TrialList
from speechbrain_ssl.lobes.aggregator import CrossConditionAggregator

DRAW = np.random.default_rng(5)


def gaussians(trials):
    """Scores N(4, 1) and N(0, 1): their log ratio is 4 s - 8."""
    targets = np.arange(trials) % 4 == 0
    return DRAW.normal(size=trials) + 4 * targets, targets


def test_log_ratios_of_gaussians_are_found_whatever_the_share_of_targets():
    scores, targets = gaussians(40_000)
    ratios = fit_calibration(scores, targets, {})([0.0, 2.0, 4.0], {})
    # Twice the standard error that 200 such draws show.
    assert ratios == pytest.approx([-8, 0, 8], abs=0.8)


@pytest.mark.parametrize("p_target", [0.5, 0.1])
def test_no_step_from_the_fit_lowers_the_weighted_loss(p_target):
    scores, targets = gaussians(300)
    measure = DRAW.normal(size=300)
    fitted = fit_calibration(scores, targets, {"m": measure}, p_target)

    def loss(shift, slope, tilt):
        total = 0.0
        counts = {True: targets.sum(), False: (~targets).sum()}
        ratios = fitted(scores * slope, {"m": measure * tilt}) + shift
        for ratio, target in zip(ratios, targets):
            margin = ratio + math.log(p_target / (1 - p_target))
            share = p_target if target else 1 - p_target
            sign = 1 if target else -1
            odds = math.log1p(math.exp(-sign * margin))
            total += share / counts[bool(target)] * odds
        return total

    best = loss(0, 1, 1)
    for step in (-0.02, 0.02):
        assert loss(step, 1, 1) > best
        assert loss(0, 1 + step, 1) > best
        assert loss(0, 1, 1 + 20 * step) > best - 1e-9


def test_a_measure_that_tells_something_lowers_the_cost():
    scores, targets = gaussians(2000)
    offset = DRAW.normal(size=2000) * 3
    moved = scores + offset
    alone = cllr(fit_calibration(moved, targets, {})(moved, {}), targets)
    measures = {"offset": offset, "constant": np.ones(2000)}
    fitted = fit_calibration(moved, targets, measures)
    assert cllr(fitted(moved, measures), targets) < alone - 0.2


def test_a_measure_that_is_constant_but_for_rounding_has_no_weight():
    scores, targets = gaussians(400)
    norms = 1 + 2.5e-8 * DRAW.normal(size=400)  # of vectors of length one
    fitted = fit_calibration(scores, targets, {"norm": norms})
    shorter = {"norm": np.full(400, 0.7)}  # of the mean of a few
    alone = fit_calibration(scores, targets, {})(scores, {})
    np.testing.assert_allclose(fitted(scores, shorter), alone, atol=1e-4)


def test_a_calibration_is_read_back_for_its_setting_only(tmp_path):
    scores, targets = gaussians(100)
    path, maker = tmp_path / "c.json", {"score_norm": "as", "top": 3}
    measures = {"m": DRAW.normal(size=100)}
    fitted = fit_calibration(scores, targets, measures)
    fitted._replace(setting=maker).save(path)
    again = read_calibration(path, maker)(scores, measures)
    np.testing.assert_array_equal(again, fitted(scores, measures))
    with pytest.raises(BadInputError, match="score_norm='as'; this is 'z'"):
        read_calibration(path, {"score_norm": "z"})
    with pytest.raises(BadInputError, match="the measure 'm' is missing"):
        fitted(scores, {})
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "weights": [1.0]}))
    with pytest.raises(BadInputError, match="do not fit each other"):
        read_calibration(path, maker)
    path.write_text("{}")
    with pytest.raises(BadInputError, match="it is no calibration"):
        read_calibration(path, maker)


def test_measures_that_are_not_finite_are_refused():
    with pytest.raises(BadInputError, match="2 values of 'm' are not finite"):
        measures = {"m": np.array([np.nan, np.inf, 0])}
        fit_calibration([0.1, 0.2, 0.3], [1, 0, 1], measures)


ROWS = pd.DataFrame(
    {
        "ID": list("abcd"),
        "spk_id": list("xxyz"),
        "start": 0,
        "stop": [100, 900, 300, 50],
        "genre": ["sing", "talk", "talk", "sing"],
        "seconds": [1.0, 5.0, 3.0, 20.0],
    }
)
TRIALS = pd.DataFrame(
    [(1, "a", "b"), (0, "a", "c"), (0, "b", "d"), (0, "d", "a")],
    columns=["target", "enrol", "test"],
)


def test_measures_are_the_lower_and_the_higher_side():
    table = Embeddings(DRAW.normal(size=(4, 1, 3)), np.ones((4, 1)))
    trials = TrialList(TRIALS, ROWS)
    cohort = DRAW.normal(size=(5, 3)).astype(np.float32)
    tested = Embeddings(table.vectors[trials.tested], np.ones((4, 1)))
    scorer = Scorer(None, "s", cohort)
    found = quality_measures(scorer, trials, table, tested)
    assert len(found) == 6

    def side(name, key):
        row = "abcd".index(name)
        vector = table.vectors[row, 0]
        if key == "duration":
            return math.log(ROWS["stop"][row])
        if key == "norm":
            return np.linalg.norm(vector)
        units = cohort / np.linalg.norm(cohort, axis=1, keepdims=True)
        return np.mean(units @ vector) / np.linalg.norm(vector)

    for key in ("duration", "norm", "cohort_mean"):
        for n, (_, *names) in enumerate(TRIALS.itertuples(index=False)):
            pair = sorted(side(name, key) for name in names)
            given = [found[f"{key}_{end}"][n] for end in ("low", "high")]
            assert given == pytest.approx(pair, abs=1e-5)


def test_groups_are_both_values_or_the_duration_of_the_shorter_side():
    trials = TrialList(TRIALS, ROWS)
    test = trials.rows.iloc[trials.tested]
    places = trials.enrol_rows, trials.test_rows
    groups = trial_groups("genre", trials.rows, test, *places)
    assert groups.tolist() == ["sing, talk", "sing, talk", "sing, talk", "sing"]
    groups = trial_groups("genre", None, test, *places)
    assert groups.tolist() == ["talk", "talk", "sing", "sing"]
    groups = trial_groups("duration", trials.rows, test, *places)
    expected = ["below 2 s", "below 2 s", "4 to 8 s", "below 2 s"]
    assert groups.tolist() == expected


def test_figures_of_a_group_are_those_of_its_trials_alone():
    scores, targets = gaussians(200)
    groups = np.array(list("abc"))[DRAW.integers(0, 3, 200)]
    for name, figures in breakdown(scores, targets, groups).items():
        here = groups == name
        assert figures == verification_metrics(scores[here], targets[here])


def test_metadata_of_utterances_or_speakers_is_joined(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("sex,spk_id\nf,x\nm,y\nm,z\n")
    assert read_metadata(path, ROWS)["sex"].tolist() == list("ffmm")
    path.write_text("ID,sex\na,f\nb,m\n")
    with pytest.raises(BadInputError, match="2 problems.*\n.*nothing of 'c'"):
        read_metadata(path, ROWS)
    path.write_text("wav,spk_id,mood\n1,x,sad\n2,x,glad\n3,y,sad\n4,z,sad\n")
    with pytest.raises(BadInputError, match="different lines for 'x'"):
        read_metadata(path, ROWS)
    path.write_text("name,sex\na,f\n")
    with pytest.raises(BadInputError, match="it has the columns name, sex"):
        read_metadata(path, ROWS)


def test_the_aggregator_makes_models_of_several_cuts():
    torch.manual_seed(0)
    aggregator = CrossConditionAggregator(8, heads=2, aggregation="value_map")
    table = Embeddings(
        DRAW.normal(size=(5, 1, 8)).astype(np.float32), np.ones((5, 1))
    )
    members = [np.array([0, 3]), np.array([1, 2, 4])]
    setting = Setting(enrolment="aggregator", aggregator=aggregator.enrol)
    made = enrol_models(None, None, members, table, setting, "cpu").vectors
    for own, vector in zip(members, made[:, 0]):
        cuts = torch.nn.functional.normalize(
            torch.from_numpy(table.vectors[own, 0]), dim=-1
        )
        expected = aggregator.enrol(cuts).detach().numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    for setting, message in (
        (Setting(enrolment="aggregator"), "the model has no aggregator"),
        (Setting(enrolment="sum"), "'sum' was given"),
    ):
        with pytest.raises(BadInputError, match=message):
            enrol_models(None, None, members, table, setting, "cpu")
