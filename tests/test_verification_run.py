"""verify.py with its options, on tones and a SpeechBrain model folder."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import metrics, run_verify, scores
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.metrics import eer


@pytest.fixture(scope="module")
def plain(small_corpus, stock, tmp_path_factory):
    """Output of verify.py without options."""
    folder = tmp_path_factory.mktemp("out") / "plain"
    assert run_verify(small_corpus, stock, folder) == 0
    return folder


def test_a_stock_model_folder_scores_as_speechbrain_does(
    plain, stock, small_corpus, tmp_path
):
    theirs = SpeakerRecognition.from_hparams(str(stock), savedir=tmp_path)
    lines = (plain / "scores" / "clean.txt").read_text().splitlines()
    assert len(lines) == 16
    for line in lines[::5]:
        _, one, two, score = line.split()
        waves = [
            torch.from_numpy(
                soundfile.read(small_corpus / "wav" / f, dtype="float32")[0]
            )
            for f in (one, two)
        ]
        expected, _ = theirs.verify_batch(*(wave[None] for wave in waves))
        assert float(score) == pytest.approx(expected.item(), abs=1e-4)
    assert metrics(plain)["method"] == "stock"
    assert (plain / "plots" / "histogram.png").stat().st_size > 1000


def test_norms_backends_groups_and_intervals_are_reported(
    plain, small_corpus, stock, manifests, tmp_path
):
    status = run_verify(
        small_corpus,
        stock,
        tmp_path,
        f"--utterances=[{manifests / 'test.csv'}]",
        "--data_folder=null",
        f"--cohort={manifests / 'cohort.csv'}",
        "--score_norm=as",
        "--cohort_top=5",
        "--cohort_of=speakers",
        "--backend=plda",
        f"--metadata={manifests / 'meta.csv'}",
        "--bootstrap=20",
        f"--compare=[{plain}]",
    )
    assert status == 0
    figures = metrics(tmp_path)["trials"]["clean"]
    assert set(figures["breakdown"]["sex"]) == {"f", "m", "f, m"}
    # Of four speakers f, m, f, m: targets 2 + 2; pairs ff, mm twice (both
    # orders), the other 8 mixed.
    counts = {
        name: (part["targets"], part["nontargets"])
        for name, part in figures["breakdown"]["sex"].items()
    }
    assert counts == {"f": (2, 2), "m": (2, 2), "f, m": (0, 8)}
    low, high = figures["intervals"]["eer"]
    assert 0 <= low <= high <= 1
    assert metrics(tmp_path)["scoring"]["backend"] == "plda"
    assert not np.allclose(scores(tmp_path), scores(plain), atol=0.1)


def test_padded_embeddings_score_alike(plain, small_corpus, stock, tmp_path):
    assert run_verify(small_corpus, stock, tmp_path, "--padding=0.9") == 0
    np.testing.assert_allclose(scores(tmp_path), scores(plain), atol=0.02)


def test_calibration_is_fitted_saved_and_applied(
    plain, small_corpus, stock, manifests, tmp_path
):
    fitted = tmp_path / "calibration.json"
    more = ["--measures=[duration,norm]", f"--fit_calibration={fitted}"]
    assert run_verify(small_corpus, stock, tmp_path / "fit", *more) == 0
    applied = f"--calibration={fitted}"
    assert run_verify(small_corpus, stock, tmp_path / "use", applied) == 0
    figures = metrics(tmp_path / "use")["trials"]["clean"]["calibrated"]
    assert figures["min_cllr"] <= figures["cllr"] < 1
    # The threshold was chosen on these very trials.
    assert figures["false_alarm_rate"] <= 0.01
    assert len(scores(tmp_path / "use" / "scores" / "..")) == 16
    other = [applied, "--score_norm=z", f"--cohort={manifests / 'cohort.csv'}"]
    assert run_verify(small_corpus, stock, tmp_path / "no", *other) == 2


@pytest.fixture(scope="module")
def models(manifests):
    """Two models of two cuts each, and trials that name them."""
    rows = read_manifest(manifests / "test.csv")
    cuts = rows[rows["spk_id"].isin(["spk12", "spk13"])]
    table = cuts[["ID"]].assign(model=cuts["spk_id"] + "-enrol")
    table.to_csv(manifests / "models.csv", index=False)
    lines = [
        f"{model}-enrol {name} {1 * (name.split('/')[0] == model)}"
        for model in ("spk12", "spk13")
        for name in rows["ID"]
    ]
    (manifests / "trials.txt").write_text("\n".join(lines) + "\n")
    return manifests


@pytest.mark.parametrize("two_part", [False, True])
@pytest.mark.parametrize("enrolment", ["joined", "mean"])
def test_models_of_several_cuts_are_the_slow_ones(
    enrolment, two_part, small_corpus, stock, models, tmp_path
):
    more = [
        f"--trials={models / 'trials.txt'}",
        f"--utterances=[{models / 'test.csv'}]",
        "--data_folder=null",
        f"--models={models / 'models.csv'}",
        f"--enrolment={enrolment}",
        f"--two_part={two_part}",
    ]
    assert run_verify(small_corpus, stock, tmp_path / "out", *more) == 0
    theirs = SpeakerRecognition.from_hparams(str(stock), savedir=tmp_path)

    def vectors(wave):
        """Unit vectors of the whole and of its five pieces."""
        waves = [wave]
        length = round(3.015 * 16000)
        while len(wave) < length:
            wave = np.concatenate([wave, wave[: length - len(wave)]])
        waves += [
            wave[int(start) :][:length]
            for start in np.linspace(0, len(wave) - length, 5)
        ]
        made = [theirs.encode_batch(torch.from_numpy(w)[None]) for w in waves]
        made = [vector.flatten().numpy() for vector in made]
        return np.stack([vector / np.linalg.norm(vector) for vector in made])

    def wave(name):
        path = small_corpus / "wav" / name
        return soundfile.read(path, dtype="float32")[0]

    table = pd.read_csv(models / "models.csv")
    lines = (models / "trials.txt").read_text().splitlines()
    given = scores(tmp_path / "out")
    for line, score in list(zip(lines, given))[::5]:
        model, test, _ = line.split()
        cuts = [wave(name) for name in table["ID"][table["model"] == model]]
        if enrolment == "joined":
            one = vectors(np.concatenate(cuts))
        else:
            one = np.mean([vectors(cut) for cut in cuts], axis=0)
            one /= np.linalg.norm(one, axis=1, keepdims=True)
        cosines = one @ vectors(wave(test)).T
        expected = cosines[0, 0]
        if two_part:
            expected = (expected + cosines[1:, 1:].mean()) / 2
        assert score == pytest.approx(expected, abs=1e-4)


def test_noise_interferes_at_its_level(
    small_corpus, stock, manifests, tmp_path
):
    noise = np.random.default_rng(1).normal(0, 0.1, 20000)
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "a.wav", noise, 16000)
    more = ["--snrs_db=[60,0]", f"--noise_folder={tmp_path / 'noise'}"]
    assert run_verify(small_corpus, stock, tmp_path / "out", *more) == 0
    clean, quiet, loud = (
        scores(tmp_path / "out", name) for name in ("clean", "snr_60", "snr_0")
    )
    assert abs(quiet - clean).max() < abs(loud - clean).max() / 5


def test_systems_of_one_name_are_told_apart(
    plain, small_corpus, stock, tmp_path, monkeypatch
):
    for method in ("csc", "dino"):
        shutil.copytree(plain / "scores", tmp_path / method / "1234" / "scores")
    drawn = []
    monkeypatch.setattr(
        plots, "plot_det", lambda systems, path: drawn.append(list(systems))
    )
    folders = [tmp_path / method / "1234" for method in ("csc", "dino")]
    given = f"--compare=[{folders[0]},{folders[1]}]"
    assert run_verify(small_corpus, stock, tmp_path / "out", given) == 0
    others = [f"{folder}, clean" for folder in folders]
    assert drawn == [["stock, clean", *others]]


def test_scores_of_other_trials_are_not_drawn_beside(
    plain, small_corpus, stock, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    path = other / "scores" / "clean.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    more = f"--compare=[{other}]"
    assert run_verify(small_corpus, stock, tmp_path / "out", more) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message and "line 1 is of another trial" in message
    assert not (tmp_path / "out" / "embeddings").exists()


def test_scores_give_the_metrics_beside_them(plain):
    lines = (plain / "scores" / "clean.txt").read_text().splitlines()
    targets = [int(line.split()[0]) for line in lines]
    value, _ = eer(scores(plain), targets)
    assert value == metrics(plain)["trials"]["clean"]["eer"]
