"""verify.py with its options, on tones and a SpeechBrain model folder."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

import verify
from speechbrain_ssl.dataio.manifest import read_manifest, write_manifest
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.metrics import eer

STOCK = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 24
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 24
    channels: [8, 8, 8, 8, 24]
    lin_neurons: 12
    attention_channels: 8
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Model folder that stock SpeechBrain loads, weights drawn."""
    folder = tmp_path_factory.mktemp("models") / "stock"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(STOCK)
    torch.manual_seed(4)
    model = ECAPA_TDNN(
        24, channels=[8, 8, 8, 8, 24], lin_neurons=12, attention_channels=8
    )
    torch.save(model.state_dict(), folder / "embedding_model.ckpt")
    return folder


@pytest.fixture(scope="module")
def manifests(small_corpus, tmp_path_factory):
    """Manifests of the trials' speakers and of the others, with sex."""
    folder = tmp_path_factory.mktemp("manifests")
    rows = []
    for path in sorted((small_corpus / "wav").rglob("*.wav")):
        name = path.relative_to(small_corpus / "wav").as_posix()
        rows.append((name, 1.0, str(path), 0, 16000, name.split("/")[0]))
    names = ["ID", "duration", "wav", "start", "stop", "spk_id"]
    rows = pd.DataFrame(rows, columns=names)
    tested = rows["spk_id"] >= "spk12"
    write_manifest(rows[tested], folder / "test.csv")
    write_manifest(rows[~tested], folder / "cohort.csv")
    sexes = pd.DataFrame({"spk_id": rows["spk_id"].unique()})
    sexes["sex"] = ["f", "m"] * 8
    sexes.to_csv(folder / "meta.csv", index=False)
    return folder


def run(corpus, source, output, *more):
    """Exit status of verify.py; the last of a key counts."""
    given = [
        f"--source={source}",
        f"--trials={corpus / 'trials.txt'}",
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        "--sirs_db=[]",
        "--device=cpu",
        *more,
    ]
    last = {argument.split("=")[0]: argument for argument in given}
    yaml = str(REPOSITORY / "hparams" / "verify.yaml")
    return verify.main([yaml, *last.values()])


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def scores(folder, condition="clean"):
    lines = (folder / "scores" / f"{condition}.txt").read_text().splitlines()
    return np.array([float(line.split()[3]) for line in lines])


@pytest.fixture(scope="module")
def plain(small_corpus, stock, tmp_path_factory):
    """Output of verify.py without options."""
    folder = tmp_path_factory.mktemp("out") / "plain"
    assert run(small_corpus, stock, folder) == 0
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
    status = run(
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
    assert run(small_corpus, stock, tmp_path, "--padding=0.9") == 0
    np.testing.assert_allclose(scores(tmp_path), scores(plain), atol=0.02)


def test_calibration_is_fitted_saved_and_applied(
    plain, small_corpus, stock, manifests, tmp_path
):
    fitted = tmp_path / "calibration.json"
    more = ["--measures=[duration,norm]", f"--fit_calibration={fitted}"]
    assert run(small_corpus, stock, tmp_path / "fit", *more) == 0
    applied = f"--calibration={fitted}"
    assert run(small_corpus, stock, tmp_path / "use", applied) == 0
    figures = metrics(tmp_path / "use")["trials"]["clean"]["calibrated"]
    assert figures["min_cllr"] <= figures["cllr"] < 1
    # The threshold was chosen on these very trials.
    assert figures["false_alarm_rate"] <= 0.01
    assert len(scores(tmp_path / "use" / "scores" / "..")) == 16
    other = [applied, "--score_norm=z", f"--cohort={manifests / 'cohort.csv'}"]
    assert run(small_corpus, stock, tmp_path / "no", *other) == 2


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
    assert run(small_corpus, stock, tmp_path / "out", *more) == 0
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
    assert run(small_corpus, stock, tmp_path / "out", *more) == 0
    clean, quiet, loud = (
        scores(tmp_path / "out", name) for name in ("clean", "snr_60", "snr_0")
    )
    assert abs(quiet - clean).max() < abs(loud - clean).max() / 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--score_norm=as"], "score_norm needs a cohort"),
        (["--backend=x"], "backend is 'x'"),
        (["--score_norm=x"], "score_norm is 'x'"),
        (["--padding=1.0"], "padding is 1.0"),
        (["--utterances=[a.csv]"], "either data_folder or utterances"),
        (["--measures=[size]"], "measures has 'size'"),
        (["--snrs_db=[5]"], "snrs_db needs a noise_folder"),
        (["--calibration=no.json"], "it is no calibration"),
        (["--metadata=no.csv"], "there is no such file"),
        (["--models=no.csv"], "there is no such table of models"),
        (["--compare=[no]"], "there is no such score file"),
        (["--breakdown=[genre]"], "there is no column 'genre'"),
        (["--breakdown=genre"], "breakdown is 'genre', no list"),
        (["--sirs_db=5"], "sirs_db is '5', no list"),
        (["--source=someone/model"], "--trust_source=True"),
        (["--network=encoder"], "only train.py's folders have one"),
    ],
)
def test_bad_input_is_one_clear_error(
    more, message, small_corpus, stock, tmp_path, capsys
):
    assert run(small_corpus, stock, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "embeddings").exists()


def test_a_model_folder_is_no_output_folder(small_corpus, stock, capsys):
    before = sorted(stock.iterdir())
    assert run(small_corpus, stock, stock) == 2
    assert "output_folder is a model's" in capsys.readouterr().err
    assert sorted(stock.iterdir()) == before


def test_manifests_of_another_sample_rate_are_refused(
    small_corpus, stock, manifests, tmp_path, capsys
):
    rows = read_manifest(manifests / "cohort.csv")
    soundfile.write(tmp_path / "a.wav", np.ones(8000) / 9, 8000)
    rows.loc[3, ["wav", "stop"]] = str(tmp_path / "a.wav"), 8000
    write_manifest(rows, tmp_path / "cohort.csv")
    more = [f"--cohort={tmp_path / 'cohort.csv'}", "--score_norm=s"]
    assert run(small_corpus, stock, tmp_path / "out", *more) == 2
    assert "a.wav has 8000 Hz, the model 16000" in capsys.readouterr().err
    for more in (
        [f"--utterances=[{tmp_path / 'cohort.csv'}]", "--data_folder=null"],
        [f"--interferers={tmp_path / 'cohort.csv'}", "--sirs_db=[5]"],
    ):
        assert run(small_corpus, stock, tmp_path / "out", *more) == 2
        assert "8000 Hz, the model 16000" in capsys.readouterr().err


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
    assert run(small_corpus, stock, tmp_path / "out", given) == 0
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
    assert run(small_corpus, stock, tmp_path / "out", more) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message and "line 1 is of another trial" in message
    assert not (tmp_path / "out" / "embeddings").exists()


def test_scores_give_the_metrics_beside_them(plain):
    lines = (plain / "scores" / "clean.txt").read_text().splitlines()
    targets = [int(line.split()[0]) for line in lines]
    value, _ = eer(scores(plain), targets)
    assert value == metrics(plain)["trials"]["clean"]["eer"]
