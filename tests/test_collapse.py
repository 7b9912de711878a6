"""Signs of collapse, computed and provoked."""

import json
import math
import re

import pytest
import torch
from conftest import dino_options

from speechbrain_ssl import experiment
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.collapse import (
    TeacherWatch,
    embedding_statistics,
    verdict,
)

HEALTHY = {
    "teacher_entropy": 3.0,
    "top_prototype_share": 0.1,
    "prototypes_in_use": 40,
    "mean_cosine": 0.2,
    "effective_rank": 20.0,
}


def test_statistics_equal_the_definitions():
    torch.manual_seed(0)
    embeddings = torch.randn(9, 5) + 1
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    cosines = [
        float(unit[i] @ unit[j]) for i in range(9) for j in range(9) if i != j
    ]
    eigenvalues = torch.linalg.eigvalsh(torch.cov(unit.T))
    shares = eigenvalues / eigenvalues.sum()
    rank = math.exp(-(shares * shares.log()).sum())
    figures = embedding_statistics(embeddings)
    assert figures["mean_cosine"] == pytest.approx(sum(cosines) / 72, abs=1e-5)
    assert figures["effective_rank"] == pytest.approx(rank, rel=1e-3)
    assert figures["embedding_spread"] == pytest.approx(
        float(unit.std(0).mean()) * 5**0.5, rel=1e-4
    )


def test_watch_counts_winners_and_keeps_recent_embeddings():
    watch = TeacherWatch(6, torch.device("cpu"), most=4)
    for number in range(3):
        watch.add(torch.tensor([[0, 1], [0, 5]]), torch.randn(2, 3) + number)
    figures = watch.figures()
    assert figures["prototypes_in_use"] == 3
    assert figures["top_prototype_share"] == pytest.approx(0.5)
    assert len(torch.cat(watch.recent)) == 4
    watch.add(torch.tensor([[0]]), torch.full((1, 3), torch.nan))
    assert math.isfinite(watch.figures()["effective_rank"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher_entropy": math.log(64) - 1e-3}, "the same probability"),
        ({"top_prototype_share": 0.95}, "one prototype wins 95 %"),
        ({"prototypes_in_use": 2}, "2 of 64 are in use"),
        ({"mean_cosine": 0.99999}, "the same .mean cosine"),
        ({"effective_rank": 1.1}, "effective rank 1.1"),
    ],
)
def test_a_collapse_is_certain_when_it_lasts(change, named):
    bad = {**HEALTHY, **change}
    assert verdict([HEALTHY] * 3, 64) is None
    assert verdict([HEALTHY, bad, bad], 64) is None
    assert verdict([bad, HEALTHY, bad, bad], 64) is None
    assert re.search(named, verdict([HEALTHY, bad, bad, bad], 64))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        # A teacher as soft as the student: nothing sharpens.
        (
            [
                "--teacher_temperature=1.0",
                "--student_temperature=1.0",
                "--first_momentum=0.0",
                "--peak_rate=0.02",
            ],
            "the same probability",
        ),
        # A sharp teacher and a centre that stays at zero.
        (
            [
                "--teacher_temperature=0.02",
                "--centre_momentum=1.0",
                "--first_momentum=0.0",
                "--peak_rate=0.005",
                "--head_layers=3",
                "--head_batch_norm=False",
            ],
            "one prototype wins",
        ),
    ],
    ids=["uniform", "dominant"],
)
def test_training_stops_at_both_kinds_of_collapse(
    settings, named, small_corpus, tmp_path
):
    arguments = dino_options(
        small_corpus,
        tmp_path / "run",
        "--number_of_epochs=5",
        "--steps_per_epoch=20",
        "--sinkhorn_iterations=0",
        "--variance_weight=0",
        "--covariance_weight=0",
        "--prototype_freeze_steps=0",
        *settings,
    )
    with pytest.raises(BadInputError, match=named) as stopped:
        experiment.start(arguments)
    assert "collapse" in str(stopped.value) and "lower" in str(stopped.value)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert 3 <= len(history) < 5
    assert not (tmp_path / "run" / "metrics.json").exists()
