"""What a user does with a model folder: vectors, scores, talkers."""

import math
import os
import re
import shutil
from shutil import copytree, rmtree

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from scipy.signal import resample_poly

from speechbrain_ssl import cli
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.calibration import (
    PLAIN,
    Calibration,
    read_plain,
)
from speechbrain_ssl.evaluation.embed import probe_vector
from speechbrain_ssl.inference import SpeakerModel
from speechbrain_ssl.pretrained import Pretrained, load_model


@pytest.fixture
def waves(small_corpus, tmp_path):
    """Copies of two recordings, and of the first in other forms."""
    folder = tmp_path / "audio"
    (folder / "deep").mkdir(parents=True)
    one, _ = soundfile.read(small_corpus / "wav/spk00/s0/00000.wav")
    two, _ = soundfile.read(small_corpus / "wav/spk09/s0/00001.wav")
    soundfile.write(folder / "a.wav", one, 16000)
    soundfile.write(folder / "deep" / "b.flac", two[:9000], 16000)
    fast = np.stack([resample_poly(one, 3, 1), resample_poly(two, 3, 1)], 1)
    soundfile.write(folder / "c.ogg", np.tile(fast, (2, 1)), 48000)
    (folder / "notes.txt").write_text("no audio")
    return folder


def embed(exported, *places, to, name="dino"):
    source = ["--source", str(exported / name), "--device", "cpu"]
    return cli.main(
        ["embed", *map(str, places), *source, "--to", str(to / "e.npz")]
    )


def test_embed_a_folder_as_the_encoder_of_training_does(
    exported, runs, waves, tmp_path, caplog
):
    assert embed(exported, waves, to=tmp_path) == 0
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        names, vectors = file["names"].tolist(), file["embeddings"]
    assert names == ["a.wav", "c.ogg", "deep/b.flac"]
    encoder = Pretrained(runs / "dino").encoder
    stereo, _ = soundfile.read(waves / "c.ogg")
    inputs = [
        soundfile.read(waves / "a.wav")[0],
        resample_poly(stereo.mean(1), 1, 3),
        soundfile.read(waves / "deep" / "b.flac")[0],
    ]
    for i, wave in enumerate(inputs):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(wave).float()[None])[0].numpy()
        error = np.abs(vectors[i] - expected).max()
        assert error < (0.3 if i == 1 else 1e-5), i  # two resamplers
    assert caplog.text.count("48000 Hz and 2 channel(s)") == 1


def test_embed_a_manifest_that_stays_in_its_folder(
    exported, waves, tmp_path, capsys, monkeypatch
):
    head = "ID,duration,wav,start,stop,spk_id\n"
    manifest = waves / "list.csv"
    manifest.write_text(
        head + "x,1.0,a.wav,0,8000,s\ny,1.0,deep/b.flac,1000,9000,s\n"
    )
    assert embed(exported, manifest, to=tmp_path) == 0
    monkeypatch.chdir(waves.parent)  # and with paths that preparation writes
    away = tmp_path / "list.csv"
    away.write_text(f"{head}x,1.0,{waves.name}/a.wav,0,8000,s\n")
    more = ["--data-folder", waves.name]
    assert embed(exported, away, *more, to=tmp_path) == 0
    monkeypatch.chdir(waves / "deep")  # where another a.wav is none of it
    shutil.copy(waves / "c.ogg", "a.wav")
    assert embed(exported, manifest, to=tmp_path) == 0
    (waves / "deep" / "a.wav").unlink()
    with np.load(tmp_path / "e.npz") as file:
        assert file["names"].tolist() == ["x", "y"]
        vectors = file["embeddings"]
    half, _ = soundfile.read(waves / "a.wav", stop=8000)
    soundfile.write(tmp_path / "half.wav", half, 16000)
    model = SpeakerModel(exported / "dino", "cpu")
    alone = model.embed([tmp_path / "half.wav"])
    assert np.abs(alone[0] - vectors[0]).max() < 1e-4
    outside = tmp_path / "half.wav"
    manifest.write_text(
        f"{head}x,1.0,../half.wav,0,8000,s\ny,1,{outside},0,8000,s\n"
    )
    assert embed(exported, manifest, to=tmp_path) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message and "'../half.wav' is not below" in message
    more = ["--data-folder", str(tmp_path)]
    manifest.write_text(f"{head}y,1,{outside},0,8000,s\n")
    assert embed(exported, manifest, *more, to=tmp_path) == 0


def test_a_training_folder_that_moved_has_its_own_checkpoints(runs, tmp_path):
    moved = copytree(runs / "dino", tmp_path / "moved")
    found = Pretrained(moved).checkpoints[0]
    assert str(found.path).startswith(str(moved))
    yaml, gone = moved / "hyperparams.yaml", tmp_path / "gone"
    text = yaml.read_text().replace(str(runs / "dino"), str(gone / "dino"))
    empty = r"(noise|rir)_folder:(?= *(#.*)?\n)"
    text = re.sub(empty, rf"\1_folder: {gone}", text)
    assert text.count(f"noise_folder: {gone}") == 2
    yaml.write_text(text)
    assert Pretrained(moved).checkpoints[0].path == found.path
    assert not gone.exists()
    for folder in (moved / "save").iterdir():
        rmtree(folder)
    with pytest.raises(BadInputError, match="checkpoints are missing"):
        Pretrained(moved)


def test_weights_of_another_network_are_refused(runs, tmp_path):
    run = copytree(runs / "csc", tmp_path / "run")
    yaml = run / "hyperparams.yaml"
    text = yaml.read_text()
    other = text.replace("aggregation: attention", "aggregation: value_map")
    assert other != text
    yaml.write_text(other)
    told = r"aggregator of .*is not among them; this network has the shape"
    with pytest.raises(BadInputError, match=f"(?s){told}.*hyperparams.yaml"):
        load_model(str(run), "cpu", trust=False)


def test_score_prints_what_the_model_has(exported, waves, capsys):
    pair = [str(waves / "a.wav"), str(waves / "deep" / "b.flac")]
    model = SpeakerModel(exported / "aam_supcon", "cpu")
    one, two = model.embed(pair)
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    found = model.score(*pair)
    assert found.cosine == pytest.approx(cosine, abs=1e-5)
    assert found.log_odds == pytest.approx(9 * cosine - 2, abs=1e-4)
    odds = math.exp(found.log_odds)
    assert found.probability == pytest.approx(odds / (1 + odds))
    assert found.same == (found.cosine > found.threshold)
    assert model.score(pair[0], pair[0]).same
    source = ["--source", str(exported / "aam_supcon")]
    assert cli.main(["score", *pair, *source]) == 0
    printed = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    assert printed["probability"].startswith(f"{found.probability:.4f}")
    assert printed["threshold"].startswith(f"{model.threshold:.4f}")
    assert SpeakerModel(exported / "dino").score(*pair).probability is None


@pytest.mark.parametrize(
    ("names", "norm", "named"),
    [
        (["score"], "as", "score_norm='as'"),
        (["score", "duration_low"], "none", "needs duration_low"),
    ],
)
def test_a_calibration_of_other_scores_is_not_applied(
    names, norm, named, tmp_path
):
    many = len(names)
    setting = {**PLAIN, "score_norm": norm}
    fitted = Calibration(
        names, [0.0] * many, [1.0] * many, [1.0] * many, 0.0, setting, {}
    )
    fitted.save(tmp_path / "calibration.json")
    with pytest.raises(BadInputError, match=named):
        read_plain(tmp_path / "calibration.json")


def test_a_calibration_of_another_model_is_not_applied(
    exported, tmp_path, caplog
):
    folder = tmp_path / "model"
    copytree(exported / "dino", folder)
    own, other = (
        probe_vector(load_model(exported / name, "cpu", False).encoder, "cpu")
        for name in ("dino", "aam_supcon")
    )
    fitted = Calibration(["score"], [0.0], [1.0], [1.0], 0.0, PLAIN, {})
    for vector, serves in ((own, True), (other, False), ([], True)):
        fitted._replace(model=vector).save(folder / "calibration.json")
        model = SpeakerModel(folder, "cpu")
        assert (model.calibration is not None) == serves
    assert "fitted to scores of another model" in caplog.text


def test_a_calibration_of_another_network_is_not_applied(tmp_path):
    path = tmp_path / "calibration.json"
    setting = {**PLAIN, "network": "encoder"}
    fitted = Calibration(["score"], [0.0], [1.0], [1.0], 0.0, setting, {})
    fitted.save(path)
    with pytest.raises(BadInputError, match="network='encoder'; this is None"):
        read_plain(path)
    before = {k: v for k, v in PLAIN.items() if k != "network"}
    fitted._replace(setting=before).save(path)  # of before there was a choice
    assert read_plain(path).setting == before


def test_separate_writes_what_the_encoder_gives(
    exported, runs, waves, tmp_path, capsys
):
    mixture, _ = soundfile.read(waves / "a.wav", dtype="float32")
    given = ["separate", str(waves / "a.wav"), "--to", str(tmp_path)]
    assert cli.main([*given, "--source", str(exported / "csc")]) == 0
    with torch.no_grad():
        slots = Pretrained(runs / "csc").encoder(
            torch.from_numpy(mixture)[None]
        )
    energies = slots.estimates[0].square().sum(-1)
    order = energies.argsort(descending=True).tolist()
    with np.load(tmp_path / "a_speakers.npz") as file:
        vectors = file["embeddings"]
    for number, slot in enumerate(order):
        wave, rate = soundfile.read(tmp_path / f"a_{number + 1}.wav")
        assert rate == 16000
        expected = slots.estimates[0, slot].numpy()
        assert np.abs(wave - expected).max() < 1e-5
        expected = slots.embeddings[0, slot].numpy()
        assert np.abs(vectors[number] - expected).max() < 1e-5
    loudest = SpeakerModel(exported / "csc").embed([waves / "a.wav"])[0]
    assert np.abs(vectors[0] - loudest).max() < 1e-5
    again = [*given, "--source", str(exported / "csc")]
    assert cli.main(again) == 2
    assert "it has a a_1.wav\n" in capsys.readouterr().err
    (tmp_path / "a_1.wav").write_bytes(b"older")
    assert cli.main([*again, "--force"]) == 0
    assert soundfile.info(tmp_path / "a_1.wav").frames == len(mixture)
    assert cli.main([*given, "--source", str(exported / "dino")]) == 2
    assert "gives one vector a recording" in capsys.readouterr().err


def test_bad_audio_and_sources_are_named(
    exported, runs, waves, tmp_path, capsys
):
    (waves / "bad.wav").write_bytes(b"RIFF and no more")
    (waves / "worse.flac").write_bytes(b"")
    assert embed(exported, waves, to=tmp_path) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message and "bad.wav cannot be read" in message
    assert not (tmp_path / "e.npz").exists()
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(100), 16000)
    assert embed(exported, short, to=tmp_path) == 2
    assert "lasts 0.006 s" in capsys.readouterr().err
    assert embed(exported, short, short, to=tmp_path) == 2
    assert "comes twice" in capsys.readouterr().err
    given = ["embed", str(short), "--source", "x", "--to", "e.v1"]
    assert cli.main(given) == 2
    assert "'e.v1' does not end in .npz" in capsys.readouterr().err
    assert embed(runs, waves / "a.wav", to=tmp_path) == 2
    assert "it is a training folder" in capsys.readouterr().err
    assert embed(tmp_path, waves / "a.wav", to=tmp_path, name="no") == 2
    assert "it is no folder here" in capsys.readouterr().err


def test_readme_python_runs(exported, waves, monkeypatch, capsys):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    ours, stock = (
        block for block in found if "SpeakerModel" in block or "stock" in block
    )
    monkeypatch.chdir(waves)
    (waves / "model").symlink_to(exported / "dino")
    (waves / "b.wav").symlink_to(waves / "a.wav")
    exec(ours, {})
    assert "cosine=1.0" in capsys.readouterr().out.replace("0.99999", "1.0")
    names = {}
    exec(stock, names)
    assert names["cosine"].item() == pytest.approx(1, abs=1e-4)
    assert names["embedding"].shape[:2] == (1, 1)


def test_weights_that_run_code_are_refused(exported, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = copytree(exported / "dino", tmp_path / "model")
    torch.save({"weight": Payload()}, folder / "embedding_model.ckpt")
    given = ["score", "a.wav", "b.wav", "--source", str(folder)]
    assert cli.main(given) == 2
    assert "it cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
