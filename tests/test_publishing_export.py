"""Model folders: what is in them, and that stock SpeechBrain loads them."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import REPOSITORY
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_ssl import cli
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.evaluation.calibration import (
    PLAIN,
    Calibration,
    read_plain,
)
from speechbrain_ssl.evaluation.embed import probe_vector
from speechbrain_ssl.pretrained import Pretrained, load_model
from speechbrain_ssl.publishing import card
from speechbrain_ssl.publishing.stock import StockModel

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def front_matter(folder):
    text = (folder / "README.md").read_text()
    return yaml.safe_load(text.split("---\n")[1]), text


def test_only_stock_classes_are_named_and_no_paths(exported):
    for name in ("aam_supcon", "dino"):
        text = (exported / name / "hyperparams.yaml").read_text()
        tags = re.findall(r"!\w+:(\S+)", text)
        assert len(tags) >= 5
        assert all(tag.startswith("speechbrain.") for tag in tags)
    for path in exported.rglob("*.*"):
        if path.suffix in (".yaml", ".json", ".md"):
            text = path.read_text()
            assert str(REPOSITORY) not in text and "/tmp" not in text, path
            assert "pretrained_path" not in text


def test_dino_exports_the_teacher(exported, runs):
    save = runs / "dino" / "save"
    ours = torch.load(exported / "dino" / "embedding_model.ckpt")
    match = []
    for path in save.glob("CKPT*/*.ckpt"):
        if path.stem in ("teacher", "encoder"):
            theirs = torch.load(path, weights_only=True)
            prefix = "encoder." * (path.stem == "teacher") + "embedding_model."
            if all(torch.equal(ours[k], theirs[prefix + k]) for k in ours):
                match.append(path.stem)
    assert match == ["teacher"]


def test_classifier_gives_the_logits_of_training(exported, runs, small_corpus):
    folder = exported / "aam_supcon"
    stock = EncoderClassifier.from_hparams(str(folder))
    stock.hparams.label_encoder.expect_len(9)
    run = Pretrained(runs / "aam_supcon")
    rows = read_manifest(runs / "aam_supcon" / "manifests" / "train.csv")
    labels = sorted(set(rows["spk_id"]))
    wave, _ = soundfile.read(rows["wav"][3], dtype="float32")
    wave = torch.from_numpy(wave)[None]
    cosines, _, index, text = stock.classify_batch(wave)
    weight = run.weights("aam")["weight"][:, 0]
    with torch.no_grad():
        expected = torch.cosine_similarity(run.encoder(wave), weight)
    assert torch.allclose(cosines[0], expected, atol=1e-5)
    assert text == [labels[int(expected.argmax())]]


def test_embedding_mean_is_that_of_training_embeddings(exported, runs):
    stock = SpeakerRecognition.from_hparams(str(exported / "dino"))
    rows = read_manifest(runs / "dino" / "manifests" / "train.csv")
    waves = [soundfile.read(w, dtype="float32")[0] for w in rows["wav"]]
    waves = torch.from_numpy(np.stack(waves))
    centred = stock.encode_batch(waves, normalize=True)
    assert centred.mean(0).abs().max() < 1e-3
    assert stock.encode_batch(waves).mean(0).abs().max() > 1e-2


def test_card_tells_the_figures_of_the_run(exported, runs):
    header, text = front_matter(exported / "csc")
    assert header["library_name"] == "speechbrain"
    assert header["license"] == "apache-2.0" and header["datasets"] == ["tones"]
    metrics = json.loads((runs / "csc" / "metrics.json").read_text())
    results = header["model-index"][0]["results"]
    for result in results:
        condition = result["dataset"]["config"]
        given = {m["type"]: m["value"] for m in result["metrics"]}
        figures = metrics["trials"][condition]["rules"]["loudest"]
        assert given["eer"] == round(100 * figures["eer"], 3)
        assert given["min_dcf"] == round(figures["min_dcf"], 4)
        assert f"| {condition} | {100 * figures['eer']:.2f} |" in text
    assert {r["dataset"]["config"] for r in results} == {"clean", "sir_5"}
    best = 100 * metrics["trials"]["sir_5"]["eer"]
    assert f"the EER in % is: sir_5 {best:.2f}." in text
    first = text.split("---\n")[2].strip().splitlines()[:3]
    assert "`pip install speechbrain_ssl`" in first[2]
    assert "trained without speaker labels" in text
    supervised = front_matter(exported / "aam_supcon")[1]
    assert "trained with speaker labels" in supervised
    assert "speechbrain_ssl`" not in supervised
    assert "9 times the cosine, plus -2." in supervised
    assert "the EER in % is" not in supervised


@pytest.mark.parametrize("separates", [False, True])
def test_figures_are_of_the_slot_that_the_exported_model_has(separates):
    loudest, best = {"eer": 0.21}, {"eer": 0.17}
    rules = {"loudest": loudest, "best": best}
    figures = {"eer": 0.17, "rule": "best", "rules": rules}
    stock = SimpleNamespace(separates=separates)
    found = card._figures({"trials": {"sir_0": figures}}, stock)
    assert found == {"sir_0": loudest if separates else figures}


def test_card_tells_what_a_training_began_with():
    def began(weights, identity, **more):
        batches = functools.partial(print, identity=identity)
        given = {"embedding_weights": weights, "batches": batches, **more}
        return card._start(given)

    assert began(None, "speaker") == ""
    assert began("/home/me/my-aam/embedding_model.ckpt", "utterance") == (
        "without speaker labels from the weights "
        "`my-aam/embedding_model.ckpt` of another training,"
    )
    assert began("a/b.ckpt", "speaker").startswith("with speaker labels from")
    assert began("a/b.ckpt", "speaker", labelled="round_1/train.csv") == ""


def test_a_run_that_went_on_is_tested_anew(runs, tmp_path):
    """The weights are of another epoch than the figures of metrics.json."""
    source = tmp_path / "run"
    shutil.copytree(runs / "aam_supcon", source)
    metrics = json.loads((source / "metrics.json").read_text())
    stale = {**metrics["trials"]["clean"], "eer": 0.123}
    metrics.update(best_epoch=metrics["best_epoch"] + 1)
    metrics["trials"] = {**metrics["trials"], "clean": stale}
    (source / "metrics.json").write_text(json.dumps(metrics))
    fitted = Calibration(["score"], [0.5], [2.0], [18.0], 2.5, PLAIN, {})
    fitted.save(source / "calibration.json")
    to = tmp_path / "model"
    assert cli.main(["export", str(source), "--to", str(to)]) == 0
    ours = json.loads((to / "metrics.json").read_text())["trials"]["clean"]
    theirs = json.loads((runs / "aam_supcon" / "metrics.json").read_text())
    assert ours["eer"] == theirs["trials"]["clean"]["eer"] != 0.123
    assert not (to / "calibration.json").exists()


def test_a_calibration_of_these_weights_outlives_another_export(
    exported, runs, tmp_path, caplog
):
    to = tmp_path / "dino"
    shutil.copytree(exported / "dino", to)
    given = ["export", str(runs / "dino"), "--to", str(to), "--force"]
    own = probe_vector(load_model(to, "cpu", False).encoder, "cpu")
    fitted = Calibration(["score"], [0.5], [2.0], [18.0], 2.5, PLAIN, {}, own)
    fitted.save(to / "calibration.json")
    assert cli.main(given) == 0
    assert read_plain(to / "calibration.json") == fitted
    assert "9 times the cosine" in (to / "README.md").read_text()
    others = [-value for value in own]
    fitted._replace(model=others).save(to / "calibration.json")
    assert cli.main(given) == 0
    assert not (to / "calibration.json").exists()
    assert "fitted to scores of another model" in caplog.text


def test_an_exported_folder_is_no_training_folder(exported, tmp_path, capsys):
    given = ["export", str(exported / "dino"), "--to", str(tmp_path / "out")]
    assert cli.main(given) == 2
    assert "a model folder, no training folder" in capsys.readouterr().err
    with pytest.raises(BadInputError, match="no training folder"):
        Pretrained(exported / "dino")


def test_every_python_block_of_the_cards_runs(exported, tmp_path):
    for name in ("first.wav", "second.wav"):
        draw = np.random.default_rng(len(name)).normal(0, 0.1, 16000)
        soundfile.write(exported.parent / name, draw, 16000)
    blocks = []
    for name in ("aam_supcon", "csc", "dino"):
        found = CODE.findall(front_matter(exported / name)[1])
        assert len(found) == 2 + (name != "dino")
        blocks += found
    code = "\n".join(blocks) + "\nprint(len(waveforms), speaker, same)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=exported.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"2 \['spk\d\d'\] tensor", done.stdout)


def test_a_training_folder_is_never_replaced(runs, capsys):
    before = (runs / "dino" / "hyperparams.yaml").read_bytes()
    given = ["export", str(runs / "dino"), "--to", str(runs / "dino")]
    assert cli.main([*given, "--force"]) == 2
    assert "it is a training folder" in capsys.readouterr().err
    assert (runs / "dino" / "hyperparams.yaml").read_bytes() == before


def test_an_earlier_export_is_kept_without_force(
    exported, runs, capsys, monkeypatch
):
    card = exported / "dino" / "README.md"
    card.write_text("edited")
    given = ["export", str(runs / "dino"), "--to", str(exported / "dino")]
    assert cli.main(given) == 2
    assert "has a README.md already" in capsys.readouterr().err
    assert card.read_text() == "edited"
    folders, make = [], tempfile.TemporaryDirectory
    monkeypatch.setattr(
        tempfile,
        "TemporaryDirectory",
        lambda **where: folders.append(where.get("dir")) or make(**where),
    )
    assert cli.main([*given, "--name", "user/dino", "--force"]) == 0
    # Where `os.replace` works, even if it is a mount or a link elsewhere.
    assert folders[0] == exported / "dino"
    assert card.read_text().startswith("---\nlibrary_name: speechbrain")


def test_average_is_the_mean_and_needs_kept_epochs(runs, tmp_path, capsys):
    source = runs / "aam_supcon"
    given = ["export", str(source), "--to", str(tmp_path / "mean")]
    calibration = source / "calibration.json"
    calibration.write_text("{}")  # of the chosen epoch, so left out
    assert cli.main([*given, "--average", "2"]) == 0
    calibration.unlink()
    assert not (tmp_path / "mean" / "calibration.json").exists()
    ours = torch.load(tmp_path / "mean" / "embedding_model.ckpt")
    both = [
        torch.load(path, weights_only=True)
        for path in sorted((source / "save").glob("CKPT*/encoder.ckpt"))
    ]
    assert len(both) == 2
    name = "fc.conv.weight"
    mean = sum(state[f"embedding_model.{name}"] for state in both) / 2
    assert torch.allclose(ours[name], mean)
    metrics = json.loads((tmp_path / "mean" / "metrics.json").read_text())
    assert metrics["epochs_exported"] == [1, 2]
    given[-1] = str(tmp_path / "more")
    assert cli.main([*given, "--average", "3"]) == 2
    assert "1 of 3 checkpoints are missing" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_folder_with_another_eer_is_refused(
    runs, tmp_path, monkeypatch, capsys
):
    def forget(model, folder, write=StockModel.write):
        write(model, folder)
        state = torch.load(folder / "embedding_model.ckpt")
        state["encoder.embedding_model.fc.conv.weight"].zero_()
        torch.save(state, folder / "embedding_model.ckpt")

    monkeypatch.setattr(StockModel, "write", forget)
    given = ["export", str(runs / "csc"), "--to", str(tmp_path / "out")]
    assert cli.main(given) == 2
    assert "its EER on the validation trials is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_folder_that_needs_this_package_unsaid_is_refused(
    runs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(StockModel, "separates", False)
    given = ["export", str(runs / "csc"), "--to", str(tmp_path / "out")]
    assert cli.main(given) == 2
    message = capsys.readouterr().err
    assert "could not be loaded back" in message
    assert "speechbrain_ssl.lobes" in message


def test_unfinished_and_moved_runs_are_refused(runs, tmp_path, capsys):
    given = ["export", str(tmp_path), "--to", str(tmp_path / "out")]
    assert cli.main(given) == 2
    assert "has no metrics.json" in capsys.readouterr().err
    moved = tmp_path / "moved"
    shutil.copytree(runs / "dino", moved)
    manifest = moved / "manifests" / "dev.csv"
    manifest.write_text(manifest.read_text().replace(".wav", ".gone"))
    assert cli.main(["export", str(moved), "--to", str(tmp_path / "o")]) == 2
    assert ".gone cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_onnx_is_not_for_separative_encoders(runs, tmp_path, capsys):
    given = ["export", str(runs / "csc"), "--to", str(tmp_path / "o")]
    assert cli.main([*given, "--onnx"]) == 2
    assert "a separative encoder is not exported" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_onnx_gives_the_embeddings_of_torch_at_any_length(
    runs, exported, tmp_path
):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    given = ["export", str(runs / "dino"), "--to", str(tmp_path / "dino")]
    assert cli.main([*given, "--onnx"]) == 0
    assert "`embedding_model.onnx` takes" in front_matter(tmp_path / "dino")[1]
    session = runtime.InferenceSession(tmp_path / "dino/embedding_model.onnx")
    stock = SpeakerRecognition.from_hparams(str(exported / "dino"))
    for batch, samples in ((1, 5000), (4, 23456)):
        waves = torch.randn(batch, samples) / 10
        (ours,) = session.run(None, {"waveforms": waves.numpy()})
        theirs = stock.encode_batch(waves)[:, 0].numpy()
        assert np.abs(ours - theirs).max() < 1e-4
