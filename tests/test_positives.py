"""Positives from other recordings."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command_line, newest_weights

import train
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.views import UtteranceSampler, ViewDataset, ViewPlan
from speechbrain_ssl.evaluation import positives
from speechbrain_ssl.evaluation.positives import NeighbourPositives, nearest

TINY = ["--batch_size=8", "--long_seconds=0.5", "--short_seconds=0.25"]


def slow_nearest(vectors, groups, count):
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    table = []
    for i in range(len(units)):
        others = [j for j in range(len(units)) if groups[j] != groups[i]]
        others.sort(key=lambda j: -units[i] @ units[j])
        others = others[:count]
        table.append(others + [-1] * (count - len(others)))
    return np.array(table)


@pytest.mark.parametrize("block", [1, 100, 2**26])
def test_neighbours_are_the_closest_of_other_groups(block, monkeypatch):
    monkeypatch.setattr(positives, "BLOCK", block)
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 5)) * draw.uniform(1, 9, (30, 1))
    groups = np.repeat([0, 1, 2], [27, 2, 1])
    found = nearest(vectors, groups, 4)
    np.testing.assert_array_equal(found, slow_nearest(vectors, groups, 4))
    assert (found[0] >= 0).sum() == 3  # there are no more


def test_plans_name_a_neighbour_and_the_rest_stays():
    rows = pd.DataFrame({"wav": [str(i) for i in range(12)]})
    sampler = UtteranceSampler(rows, 4, 1)
    before = [plan for batch in sampler for plan in batch]
    table = np.array([[(i + 1) % 12, (i + 2) % 12, -1] for i in range(12)])
    table[5] = -1
    sampler.positives = table
    after = [plan for batch in sampler for plan in batch]
    assert [plan[:2] for plan in after] == [plan[:2] for plan in before]
    drawn = set()
    for plan in after:
        if plan.row == 5:
            assert plan.positive is None
        else:
            assert plan.positive in table[plan.row, :2]
            drawn.add((plan.positive - plan.row) % 12)
    assert drawn == {1, 2}
    assert after == [plan for batch in sampler for plan in batch]


def test_half_of_each_group_of_views_is_the_neighbour(tmp_path):
    import soundfile

    for name, level in (("a", 0.25), ("b", -0.5)):
        wave = np.full(16000, level)
        soundfile.write(tmp_path / f"{name}.wav", wave, 16000)
    rows = pd.DataFrame({"wav": [str(tmp_path / f"{n}.wav") for n in "ab"]})
    rows = rows.assign(start=0, stop=16000)
    dataset = ViewDataset(rows, [7, 8], [0.5, 0.25], [2, 4])
    alone, both = (dataset[ViewPlan(0, (1, 1, 0, 0), p)] for p in (None, 1))
    assert (alone["views_0"] > 0).all() and (alone["views_1"] > 0).all()
    for number, half in (("views_0", 1), ("views_1", 2)):
        assert both[number].shape == alone[number].shape
        assert (both[number][:half] > 0).all()
        assert (both[number][half:] < 0).all()
    assert int(both["labels"]) == 7 and int(both["rows"]) == 0


def test_a_table_of_files_that_are_gone_is_made_anew(monkeypatch):
    rows = pd.DataFrame({"ID": list("abcdef"), "wav": list("abcdef")})
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    monkeypatch.setattr(
        positives, "embed_starts", lambda _, mine, device: vectors[mine.index]
    )
    brain = SimpleNamespace(
        step=3,
        evaluated=None,
        device="cpu",
        sampler=SimpleNamespace(rows=rows, positives=None),
    )
    table = NeighbourPositives(1)
    table.table = np.full((6, 1), 5, np.int32)
    table.prepare(brain, 2)  # as it was loaded
    assert (brain.sampler.positives == 5).all()
    brain.sampler.rows = rows[:5]
    table.prepare(brain, 2)
    expected = slow_nearest(vectors[:5], np.arange(5), 1)
    np.testing.assert_array_equal(brain.sampler.positives, expected)


@pytest.mark.parametrize("method", ["dino", "ntxent"])
def test_a_killed_run_with_positives_ends_in_the_same_weights(
    method, small_corpus, tmp_path, monkeypatch
):
    from speechbrain_ssl.brains.embedding import EmbeddingBrain

    class Killed(Exception):
        pass

    made = []
    real = positives.nearest
    monkeypatch.setattr(
        positives, "nearest", lambda *a: made.append(real(*a)) or made[-1]
    )
    fit_batch = EmbeddingBrain.fit_batch

    def kill(brain, batch):
        if brain.optimizer_step == 4 and len(made) == 1:
            raise Killed
        return fit_batch(brain, batch)

    more = [*TINY, "--neighbours=2", "--ckpt_interval_steps=1"]
    if method == "dino":
        more += ["--prototypes=32", "--bottleneck_dim=8"]
    text = command_line(f"{method}.yaml", small_corpus, tmp_path, *more)
    yaml = tmp_path / "run.yaml"
    with open(text[0]) as file:
        yaml.write_text(file.read().replace("first_epoch: 4", "first_epoch: 2"))
    run = [str(yaml), *text[1:], "--ckpt_interval_minutes=0"]
    whole = [f"--output_folder={tmp_path / 'whole'}"]
    again = [f"--output_folder={tmp_path / 'again'}"]
    run = [a for a in run if not a.startswith("--output_folder")]
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingBrain, "fit_batch", kill)
        with pytest.raises(Killed):
            train.main(run + again)
    assert len(made) == 1 and (made[0] >= 0).all()
    assert train.main(run + again) == 0
    assert len(made) == 1  # the table came from the checkpoint
    assert train.main(run + whole) == 0
    np.testing.assert_array_equal(made[0], made[1])
    ours, theirs = (
        newest_weights(tmp_path / name, "encoder")
        for name in ("again", "whole")
    )
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    history = json.loads((tmp_path / "again" / "history.json").read_text())
    assert len(history) == 2


def test_values_out_of_range_are_refused():
    with pytest.raises(BadInputError, match="3 problems"):
        NeighbourPositives(-1, 0, apart="speaker")
