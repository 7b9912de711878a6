"""Schedules: their curves, what is after their end, and the paper's."""

import math

import pytest
from conftest import REPOSITORY

from speechbrain_ssl import settings
from speechbrain_ssl.schedules import Cosine, Linear


def test_schedules_follow_their_curves_and_hold_their_end():
    rate = Cosine(1.0, 0.2, steps=110, warmup=10)
    assert (rate(0), rate(5)) == (0, 0.5)
    for step in (10, 35, 60, 85, 110, 500):
        share = min(1, (step - 10) / 100)
        expected = 0.2 + 0.4 * (1 + math.cos(math.pi * share))
        assert rate(step) == pytest.approx(expected)
    line = Linear(0.8, 0.4, 3)
    assert [line(step) for step in (0, 3, 9)] == [0.8, 0.4, 0.4]
    assert line(1) == pytest.approx(0.8 - 0.4 / 3)


def test_the_papers_recipe_has_its_schedules():
    path = REPOSITORY / "recipes/VoxCeleb/hparams/dino_paper.yaml"
    given = ["--data_folder=x", "--test_trials=x", "--prototypes=32"]
    hparams = settings.load([str(path), "--device=cpu", *given]).hparams
    rate, momentum = hparams["learning_rate"], hparams["teacher_momentum"]
    epoch, end = hparams["steps_per_epoch"], hparams["steps"]
    peak = 0.005 * hparams["batch_size"] / 256
    assert (rate(0), rate(10 * epoch)) == (0, peak)
    assert peak == max(rate(step) for step in range(0, end + 1, epoch // 10))
    assert rate(end) == pytest.approx(1e-6) and end == 70 * epoch
    assert (momentum(0), momentum(end)) == (0.996, 1.0)
    assert hparams["prototype_freeze_steps"] == epoch
