"""What a user runs with AAM-SupCon; and bad input."""

import json
import math

import pytest
from conftest import command_line, newest_weights

import train
from speechbrain_ssl.brains.aam_supcon import AAMSupConBrain

TINY = ["--batch_size=8", "--crop_seconds=0.5"]


def arguments(corpus, folder, *more):
    return command_line("aam_supcon.yaml", corpus, folder, *TINY, *more)


@pytest.mark.parametrize("alone", ["aam", "supcon", None])
def test_each_term_and_their_sum_are_reached_by_weights(
    alone, small_corpus, tmp_path
):
    weights = {"aam": 1.0, "supcon": 1.0}
    if alone is not None:
        weights = {name: float(name == alone) for name in weights}
    given = [f"--{name}_weight={value}" for name, value in weights.items()]
    run = arguments(small_corpus, tmp_path / "run", *given)
    assert train.main(run) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    for epoch in history:
        total = sum(weights[name] * epoch[name] for name in weights)
        assert epoch["loss"] == pytest.approx(total, rel=1e-5)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["method"] == "aam_supcon" and "clean" in metrics["trials"]


def test_options_change_what_an_anchor_meets(small_corpus, tmp_path):
    run = arguments(
        small_corpus,
        tmp_path / "run",
        "--utterances_of_a_speaker=2",
        "--chunk_size=3",
        "--inter_top_k=2",
        "--subcentres=2",
        "--contrast_margin=0.1",
        "--projection_dim=5",
        "--shared_crops=True",
        "--augmentations=[clean]",
        "--views=3",
    )
    assert train.main(run) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    for epoch in history:
        assert epoch["supcon_positives"] == pytest.approx(5)  # 2 x 3 views
        assert epoch["supcon_negatives"] == pytest.approx(18)  # 24 rows
        assert epoch["supcon_floor"] == pytest.approx(math.log(5), abs=1e-5)
        assert epoch["supcon"] > epoch["supcon_floor"]
    saved = newest_weights(tmp_path / "run", "supcon")
    assert len(saved["projection.2.weight"]) == 5


def test_margin_follows_its_schedule(small_corpus, tmp_path, monkeypatch):
    margins = []
    end = AAMSupConBrain.on_fit_batch_end

    def look(brain, *inputs):
        margins.append(brain.hparams.aam.margin)
        end(brain, *inputs)

    monkeypatch.setattr(AAMSupConBrain, "on_fit_batch_end", look)
    assert train.main(arguments(small_corpus, tmp_path / "run")) == 0
    expected = [0.2 * step / 12 for step in range(6)]  # 4 epochs of 3 steps
    assert margins == pytest.approx(expected)


def test_classes_that_are_not_the_speakers_are_refused(
    small_corpus, tmp_path, capsys
):
    run = arguments(small_corpus, tmp_path / "run", "--classes=7")
    assert train.main(run) == 2
    assert "Set --classes=9" in capsys.readouterr().err
