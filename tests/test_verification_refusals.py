"""What verify.py refuses, and what it does not leave behind."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import run_verify

from speechbrain_ssl import verification_run
from speechbrain_ssl.dataio.manifest import read_manifest, write_manifest


def test_a_calibration_serves_its_model_and_cohort_alone(
    small_corpus, stock, manifests, tmp_path, capsys
):
    cohort = f"--cohort={manifests / 'cohort.csv'}"
    fitted = tmp_path / "calibration.json"
    more = [cohort, "--measures=[cohort_mean]", f"--fit_calibration={fitted}"]
    assert run_verify(small_corpus, stock, tmp_path / "fit", *more) == 0
    applied = f"--calibration={fitted}"
    out = tmp_path / "use"
    assert run_verify(small_corpus, stock, out, applied, cohort) == 0
    rows = read_manifest(manifests / "cohort.csv")
    write_manifest(rows[2:], tmp_path / "fewer.csv")
    other = tmp_path / "other"
    shutil.copytree(stock, other)
    weights = torch.load(other / "embedding_model.ckpt", weights_only=True)
    weights["fc.conv.weight"] = weights["fc.conv.weight"].flip(1)
    torch.save(weights, other / "embedding_model.ckpt")
    for source, more, message in (
        (
            stock,
            [f"--cohort={tmp_path / 'fewer.csv'}"],
            "this is '22 utterances",
        ),
        (stock, [], "this is None"),
        (other, [cohort], "scores of another model"),
    ):
        given = source, tmp_path / "no", applied, *more
        assert run_verify(small_corpus, *given) == 2
        assert message in capsys.readouterr().err


def test_a_cohort_of_trial_speakers_is_refused_or_told(
    small_corpus, stock, manifests, tmp_path, capsys, caplog
):
    cohort = f"--cohort={manifests / 'test.csv'}"
    out = tmp_path / "out"
    assert run_verify(small_corpus, stock, out, cohort, "--backend=plda") == 2
    assert "4 of its speakers are in the trials" in capsys.readouterr().err
    assert run_verify(small_corpus, stock, out, cohort, "--score_norm=s") == 0
    assert "4 of its speakers are in the trials" in caplog.text


def test_two_recordings_of_one_name_are_refused(
    small_corpus, stock, manifests, tmp_path, capsys
):
    rows = read_manifest(manifests / "test.csv")
    one, other = rows.copy(), rows.copy()
    other["wav"] = other["wav"].to_numpy()[::-1]  # of other recordings
    paths = [tmp_path / "enrol.csv", tmp_path / "test.csv"]
    write_manifest(one, paths[0])
    given = f"--utterances=[{paths[0]},{paths[1]}]", "--data_folder=null"
    for second, status in ((one, 0), (other, 2)):
        write_manifest(second, paths[1])
        assert (
            run_verify(small_corpus, stock, tmp_path / "out", *given) == status
        )
    assert "occurs twice" in capsys.readouterr().err


def test_figures_of_an_earlier_run_do_not_stay(
    small_corpus, stock, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    assert run_verify(small_corpus, stock, out) == 0
    for name in ("scores/sir_5.txt", "scores/calibrated/clean.txt"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("old\n")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verification_run, "verify", stop)
        with pytest.raises(KeyboardInterrupt):
            run_verify(small_corpus, stock, out)
    assert not list((out / "scores").rglob("*.txt"))
    assert not (out / "metrics.json").exists()
    assert (out / "embeddings" / "clean.npz").is_file()


def test_an_utterance_too_short_for_the_encoder_is_named(
    small_corpus, stock, manifests, tmp_path, capsys
):
    rows = read_manifest(manifests / "test.csv")
    rows.loc[2, "stop"] = 480
    write_manifest(rows, tmp_path / "test.csv")
    given = f"--utterances=[{tmp_path / 'test.csv'}]", "--data_folder=null"
    assert run_verify(small_corpus, stock, tmp_path / "out", *given) == 2
    told = capsys.readouterr().err
    assert f"{rows['wav'][2]}: 480 samples are too few" in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--score_norm=as"], "score_norm needs a cohort"),
        (["--backend=x"], "backend is 'x'"),
        (["--score_norm=x"], "score_norm is 'x'"),
        (["--padding=1.0"], "padding is 1.0"),
        (["--enrolment=x"], "enrolment is 'x'"),
        (["--bootstrap=1e3"], "bootstrap is"),
        (["--two_part=True", "--sirs_db=[5]"], "two_part is of clean trials"),
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
    assert run_verify(small_corpus, stock, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "embeddings").exists()


def test_a_model_folder_is_no_output_folder(small_corpus, stock, capsys):
    before = sorted(stock.iterdir())
    assert run_verify(small_corpus, stock, stock) == 2
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
    assert run_verify(small_corpus, stock, tmp_path / "out", *more) == 2
    assert "a.wav has 8000 Hz, the model 16000" in capsys.readouterr().err
    for more in (
        [f"--utterances=[{tmp_path / 'cohort.csv'}]", "--data_folder=null"],
        [f"--interferers={tmp_path / 'cohort.csv'}", "--sirs_db=[5]"],
    ):
        assert run_verify(small_corpus, stock, tmp_path / "out", *more) == 2
        assert "8000 Hz, the model 16000" in capsys.readouterr().err
