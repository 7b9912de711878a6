"""Recipes of AAM-SupCon train and score when made small."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from cnceleb_tree import write_cnceleb
from conftest import REPOSITORY, TINY_RUN, command_line
from trees import RATE

import train
import verify
from speechbrain_ssl.evaluation.metrics import eer

TINY = [
    *[word for word in TINY_RUN if "epochs" not in word],
    "--number_of_epochs=1",
    "--batch_size=8",
    "--chunk_size=4",
    "--crop_seconds=0.3",
]


def cnceleb_options(recipe, folder, *more):
    """Arguments of a small run in a folder, on a corpus there."""
    return [
        str(REPOSITORY / "recipes/CNCeleb/hparams" / f"{recipe}.yaml"),
        f"--data_folder={write_cnceleb(folder)}",
        f"--output_folder={folder / 'run'}",
        "--full_corpus=False",
        *TINY,
        *more,
    ]


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Folders of noise, by kind, and of rooms."""
    folder, draw = tmp_path_factory.mktemp("noises"), np.random.default_rng(3)
    for kind in ("noise/babble", "noise/music", "noise/noise", "rooms"):
        (folder / kind).mkdir(parents=True)
        wave = 0.1 * draw.standard_normal(RATE)
        soundfile.write(folder / kind / "a.wav", wave, RATE)
    return [
        f"--noise_folder={folder / 'noise'}",
        f"--rir_folder={folder / 'rooms'}",
    ]


@pytest.mark.parametrize("recipe", ["aam_supcon", "aam_supcon_five_views"])
def test_cnceleb_is_prepared_trained_and_scored(recipe, noises, tmp_path):
    more = [f"--joined_folder={tmp_path / 'joined'}", "--join_seconds=0.7"]
    assert train.main(cnceleb_options(recipe, tmp_path, *more, *noises)) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["trials"]["clean"]["targets"] == 4
    assert metrics["trials"]["clean"]["nontargets"] == 3
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    views = 5 if "five" in recipe else 2
    assert history[0]["supcon_floor"] >= np.log(views - 1)
    rows = pd.read_csv(tmp_path / "run" / "manifests" / "train.csv")
    assert rows["wav"].str.startswith(str(tmp_path / "joined")).all()


def test_models_of_several_cuts_are_scored_by_genre(tmp_path):
    arguments = cnceleb_options(
        "aam_supcon", tmp_path, "--enrolment=cuts", "--join_seconds=0"
    )
    assert train.main(arguments) == 0
    run, out = tmp_path / "run", tmp_path / "scored"
    manifests = run / "manifests"
    scored = [
        str(REPOSITORY / "hparams" / "verify.yaml"),
        f"--source={run}",
        f"--trials={manifests / 'trials.txt'}",
        f"--utterances=[{manifests / 'enrol.csv'},{manifests / 'test.csv'}]",
        f"--models={manifests / 'models.csv'}",
        f"--output_folder={out}",
        "--sirs_db=[]",
        "--breakdown=[genre]",
    ]
    assert verify.main(scored) == 0
    clean = json.loads((out / "metrics.json").read_text())["trials"]["clean"]
    trained = json.loads((run / "metrics.json").read_text())["trials"]["clean"]
    assert clean["eer"] == trained["eer"]
    scores = pd.read_csv(
        out / "scores" / "clean.txt",
        sep=" ",
        names=["target", "model", "test", "score"],
    )
    groups = clean["breakdown"]["genre"]
    assert set(groups) == {"live_broadcast", "singing"}
    for genre, figures in groups.items():
        own = scores[scores["test"].str.contains(genre)]
        assert figures["targets"] == own["target"].sum()
        assert figures["eer"] == eer(own["score"], own["target"])[0]


def test_five_views_need_their_noises(tmp_path, capsys):
    assert train.main(cnceleb_options("aam_supcon_five_views", tmp_path)) == 2
    assert "'babble' is none of" in capsys.readouterr().err


def test_voxceleb_is_prepared_trained_and_scored(
    small_corpus, noises, tmp_path
):
    arguments = command_line(
        "x", small_corpus, tmp_path / "run", *TINY, *noises
    )
    path = REPOSITORY / "recipes/VoxCeleb/hparams/aam_supcon.yaml"
    assert train.main([str(path), *arguments[1:]]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["trials"]["clean"]["targets"] == 4
