"""Pieces of recordings as trials without labels."""

import pandas as pd
import pytest
from test_trials import corpus

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.pieces import halve, pieces
from speechbrain_ssl.dataio.validation import make_trials


def test_halves_of_a_row_cover_it_without_overlap():
    rows = corpus(a=[1], b=[1]).assign(start=[0, 7], stop=[10, 16])
    halves = halve(rows)
    assert halves["ID"].tolist() == ["a/0/0_a", "a/0/0_b", "b/0/0_a", "b/0/0_b"]
    assert halves["start"].tolist() == [0, 5, 7, 11]
    assert halves["stop"].tolist() == [5, 10, 11, 16]
    assert halves["spk_id"].tolist() == ["a", "a", "b", "b"]
    assert list(halves.columns) == list(rows.columns)


def test_halves_of_single_utterances_make_target_trials():
    rows = corpus(a=[1], b=[1], c=[1])
    trials = make_trials(halve(rows), seed=0)
    targets = trials[trials["target"] == 1]
    assert {name[:-2] for name in targets["enrol"]} == set(rows["ID"])
    assert (targets["enrol"].str[:-2] == targets["test"].str[:-2]).all()
    assert (trials["target"] == 0).sum() == 12


def test_rows_filtered_before_are_halved_alike():
    rows = corpus(a=[4])
    kept = rows[rows["ID"] != "a/0/1"]
    pd.testing.assert_frame_equal(
        halve(kept), halve(kept.reset_index(drop=True))
    )


def test_rows_too_short_to_halve_are_refused():
    rows = corpus(a=[2]).assign(start=0, stop=[1, 2])
    with pytest.raises(BadInputError, match="'a/0/0' has fewer than two"):
        halve(rows)


@pytest.mark.parametrize(("seconds", "count"), [(3.9, 2), (4.0, 4)])
def test_long_recordings_are_cut_into_quarters_short_ones_into_halves(
    seconds, count
):
    rows = corpus(a=[1], b=[2]).assign(
        duration=[0.5, seconds, 9.0], stop=16000, spk_id="not read"
    )
    cut = pieces(rows)
    assert cut.groupby("spk_id").size().to_dict() == dict.fromkeys(
        rows["wav"], count
    )
    for _, parts in cut.groupby("spk_id"):
        assert parts["start"].tolist() == [0, *parts["stop"][:-1]]
        assert parts["stop"].iloc[-1] == 16000
