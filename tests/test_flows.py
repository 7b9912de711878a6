"""What a user runs: train, run again, resume, verify; and bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import REPOSITORY, command_line, newest_weights, write_voices

import train
import verify
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation.verification import TrialList
from speechbrain_ssl.experiment import tested as of_trials
from speechbrain_ssl.prepare.corpus import prepare_corpus

TINY = [
    "--identities_per_batch=4",
    "--crop_seconds=0.5",
    "--valid_sirs_db=[0]",
    "--sirs_db=[5]",
]
ONLY_ECAPA = ["--n_mels", "--embedding_dim", "--channels", "--mask_channels"]


def options(corpus, output, *more):
    return command_line(
        "csc.yaml", corpus, output, *TINY, "--mask_channels=8", *more
    )


@pytest.fixture(scope="module")
def trained(small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "csc"
    assert train.main(options(small_corpus, folder)) == 0
    return folder


def test_a_run_leaves_metrics_scores_and_pictures(trained, capsys):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["method"] == "csc" and metrics["seed"] == 1234
    assert set(metrics["trials"]) == {"clean", "sir_5"}
    for figures in metrics["trials"].values():
        assert 0 <= figures["eer"] <= 1 and 0 <= figures["min_dcf"] <= 1
        assert (figures["targets"], figures["nontargets"]) == (4, 12)
        assert set(figures["rules"]) == {"loudest", "best"}
    assert metrics["trials"]["clean"]["rule"] == "loudest"
    assert metrics["trials"]["sir_5"]["rule"] == "best"
    assert "si_snr_improvement" in metrics["trials"]["sir_5"]
    assert set(metrics["log_mel_statistics"]) == {"clean", "sir_5"}
    lines = (trained / "scores" / "sir_5.txt").read_text().splitlines()
    assert len(lines) == 16 and len(lines[0].split()) == 4
    assert (trained / "plots" / "det.png").stat().st_size > 1000
    assert (trained / "plots" / "curves.png").stat().st_size > 1000
    history = json.loads((trained / "history.json").read_text())
    assert [line["epoch"] for line in history] == [1, 2]
    assert history[0]["information_bound"] == pytest.approx(
        np.log(4) - history[0]["contrastive"]
    )


def test_an_epoch_within_the_error_of_the_lowest_is_kept_and_reported(
    small_corpus, tmp_path, monkeypatch
):
    from speechbrain_ssl.brains.csc import CSCBrain
    from speechbrain_ssl.pretrained import Pretrained

    rates = iter([0.06, 0.07, 0.9, 0.9])
    monkeypatch.setattr(
        CSCBrain, "_validate", lambda self: {"valid_eer": next(rates)}
    )
    out = tmp_path / "run"
    assert train.main(options(small_corpus, out, "--number_of_epochs=4")) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["best_epoch"] == 2
    assert len(list((out / "save").iterdir())) == 3  # lowest, chosen, last
    assert Pretrained(out).checkpoints[0].meta["epoch"] == 2


def test_a_finished_run_says_so_and_changes_nothing(
    trained, small_corpus, capsys
):
    before = (trained / "metrics.json").stat().st_mtime_ns
    spelt = small_corpus / ".." / small_corpus.name  # the same folder
    for corpus in (small_corpus, spelt):
        assert train.main(options(corpus, trained, "--workers=1")) == 0
        assert "already complete after 2 epochs" in capsys.readouterr().out
    assert (trained / "metrics.json").stat().st_mtime_ns == before


def test_a_finished_run_is_not_taken_for_one_of_other_settings(
    trained, small_corpus, capsys
):
    before = (trained / "metrics.json").stat().st_mtime_ns
    given = options(small_corpus, trained, "--conditions=4", "--workers=1")
    given = [a for a in given if a.split("=")[0] != "--identities_per_batch"]
    assert train.main(given) == 2
    told = capsys.readouterr().err
    assert "conditions is 4; its run had that of the YAML" in told
    assert "identities_per_batch is as in the YAML; its run had" in told
    assert "workers" not in told and "--output_folder=DIR" in told
    assert (trained / "metrics.json").stat().st_mtime_ns == before


def test_a_run_does_not_go_on_with_other_utterances(
    trained, small_corpus, tmp_path, capsys
):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    more = ["--number_of_epochs=3", "--split_ratio=[50,50]"]
    given = options(small_corpus, out, *more)
    kept = [
        "hyperparams.yaml",
        *(f"manifests/{n}.csv" for n in ("train", "dev")),
    ]
    before = [(out / name).read_bytes() for name in kept]
    for _ in range(2):  # and stays refused
        assert train.main(given) == 2
        assert "training utterances" in capsys.readouterr().err
        assert [(out / name).read_bytes() for name in kept] == before
    assert not list(out.glob(".before*"))
    again = options(small_corpus, out, more[0], "--level_range_db=4.0")
    assert train.main(again) == 0
    told = capsys.readouterr().out
    assert "other settings: level_range_db is 4.0; its run had" in told
    assert train.main(again) == 0
    assert "already complete after 3 epochs" in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 3


def test_verify_gives_the_number_of_the_training_run(
    trained, small_corpus, tmp_path
):
    arguments = [
        str(REPOSITORY / "hparams" / "verify.yaml"),
        f"--source={trained}",
        f"--trials={small_corpus / 'trials.txt'}",
        f"--data_folder={small_corpus}",
        f"--output_folder={tmp_path}",
        "--sirs_db=[5]",
        "--device=cpu",
    ]
    assert verify.main(arguments) == 0
    ours = json.loads((tmp_path / "metrics.json").read_text())["trials"]
    theirs = json.loads((trained / "metrics.json").read_text())["trials"]
    for condition in ("clean", "sir_5"):
        assert ours[condition]["eer"] == theirs[condition]["eer"]
        here = (tmp_path / "scores" / f"{condition}.txt").read_text()
        there = (trained / "scores" / f"{condition}.txt").read_text()
        assert here == there


def test_a_killed_run_resumes_to_the_same_weights(
    trained, small_corpus, tmp_path, monkeypatch, capsys
):
    from speechbrain_ssl.brains.csc import CSCBrain

    class Killed(Exception):
        pass

    def kill(brain, *_):
        if brain.optimizer_step == 5:  # the second step of epoch 2
            raise Killed

    monkeypatch.setattr(CSCBrain, "on_fit_batch_end", kill)
    arguments = options(
        small_corpus, tmp_path / "run", "--ckpt_interval_steps=1"
    )
    arguments.append("--ckpt_interval_minutes=0")
    with pytest.raises(Killed):
        train.main(arguments)
    monkeypatch.undo()
    for minutes in (tmp_path / "run" / "save").glob("*/stopwatch.ckpt"):
        minutes.write_text("90\n")  # as if it had taken so long
    assert train.main(arguments) == 0
    assert "resuming at step 1 of an epoch" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 90 <= metrics["minutes"] < 95
    ours, theirs = (
        newest_weights(folder, "encoder")
        for folder in (tmp_path / "run", trained)
    )
    assert len(ours) > 50
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_every_ablation_is_reached_by_overrides(small_corpus, tmp_path):
    more = [
        "--number_of_epochs=1",
        "--steps_per_epoch=2",
        "--identity=speaker",
        "--contrast_set=inventory",
        "--inventory_size=9",
        "--aggregation=mean",
        "--conditions=2",
        "--contrastive_weight=0.5",
        "--separation_weight=0",
        "--aam_weight=0.25",
        "--label_free_validation=True",
    ]
    assert train.main(options(small_corpus, tmp_path / "run", *more)) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    parts = 0.5 * history[0]["contrastive"] + 0.25 * history[0]["aam"]
    assert history[0]["loss"] == pytest.approx(parts)
    assert len(newest_weights(tmp_path / "run", "aam")["weight"]) == 9


def test_a_classifier_without_weight_is_not_made(trained):
    assert not newest_weights(trained, "aam")
    assert "aam" not in json.loads((trained / "history.json").read_text())[0]


def test_time_domain_encoder_and_classifier_of_recordings_train(
    small_corpus, tmp_path
):
    more = ["--number_of_epochs=1", "--aam_weight=0.5"]
    given = options(small_corpus, tmp_path / "run", *more)
    given = [a for a in given[1:] if a.split("=")[0] not in ONLY_ECAPA]
    yaml = str(REPOSITORY / "hparams" / "csc_galr.yaml")
    assert train.main([yaml, *given]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["method"] == "csc_galr"
    # Without labels every recording is a class.
    recordings = pd.read_csv(tmp_path / "run" / "manifests" / "train.csv")
    assert recordings["spk_id"].nunique() < len(recordings)
    rows = newest_weights(tmp_path / "run", "aam")["weight"]
    assert len(rows) == len(recordings)


def test_output_folder_of_another_method_is_refused(
    trained, small_corpus, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    (other / "run.json").write_text('{"method": "dino"}')
    assert train.main(options(small_corpus, other)) == 2
    assert "it holds a run of 'dino'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--identites_per_batch=4"], "did you mean 'identities_per_batch'"),
        (["--identities_per_batch=200"], "needs 200 identities, the corpus"),
        (["--contrast_set=bach"], "one of batch, inventory, mixture"),
        (["--contrast_set=inventory", "--inventory_size=7"], "inventory_size="),
        (["--test_trials=missing.txt"], "missing.txt"),
        (["--data_folder=missing"], "missing"),
    ],
)
def test_bad_input_is_one_clear_error_before_training(
    more, message, small_corpus, tmp_path, capsys
):
    assert train.main(options(small_corpus, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "history.json").exists()


def test_output_folder_that_cannot_be_made_is_refused(
    small_corpus, tmp_path, capsys
):
    (tmp_path / "file").touch()
    assert train.main(options(small_corpus, tmp_path / "file" / "run")) == 2
    message = capsys.readouterr().err
    assert "cannot be read or written" in message
    assert str(tmp_path / "file" / "run") in message


def test_a_trial_list_may_be_a_table_and_name_other_formats(
    small_corpus, tmp_path
):
    table = tmp_path / "trials.csv"
    trials = read_trials(small_corpus / "trials.txt")
    for side in ("enrol", "test"):
        names = trials[side].str.replace(".wav", ".m4a", regex=False)
        trials[side] = names.str.replace("/", "\\", regex=False)
    trials.to_csv(table, index=False)
    prepare_corpus(tmp_path / "out", str(small_corpus), str(table))
    listed = TrialList(
        read_trials(tmp_path / "out" / "trials.txt"),
        of_trials(tmp_path / "out"),
    )
    assert len(listed.trials) == len(trials)


def test_corpus_without_trial_list_is_refused(small_corpus, tmp_path, capsys):
    arguments = options(small_corpus, tmp_path / "run")
    arguments = [a for a in arguments if not a.startswith("--test_trials")]
    assert train.main(arguments) == 2
    assert "--test_trials=FILE" in capsys.readouterr().err


def test_silent_and_stereo_files_stop_training_by_name(tmp_path, capsys):
    corpus = write_voices(tmp_path / "corpus", speakers=8)
    wav = corpus / "wav"
    soundfile.write(wav / "spk00" / "s0" / "00000.wav", np.zeros(16000), 16000)
    stereo = np.random.default_rng(1).normal(0, 0.1, (16000, 2))
    soundfile.write(wav / "spk01" / "s0" / "00001.wav", stereo, 16000)
    (corpus / "trials.txt").write_text(
        "1 spk06/s0/00000.wav spk06/s0/00001.wav\n"
        "0 spk06/s0/00000.wav spk07/s0/00001.wav\n"
    )
    assert train.main(options(corpus, tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert "00000.wav" in message and "00001.wav" in message
    assert (
        train.main(options(corpus, tmp_path / "run", "--bad_files=skip")) == 0
    )


def test_speakers_in_training_and_trials_are_refused(
    small_corpus, tmp_path, capsys
):
    """A preparation of the user's own that leaves trial speakers in."""
    script = tmp_path / "voxceleb_prepare.py"
    script.write_text(
        "from speechbrain_ssl.prepare.voxceleb import prepare_voxceleb as ours\n"
        "def prepare_voxceleb(data, save, trials, **options):\n"
        "    ours(data, save, trials, **options)\n"
        "    text = open(save + '/train.csv').read()\n"
        "    text = text.replace(',spk01\\n', ',spk12\\n')\n"
        "    text = text.replace(',spk02\\n', ',spk12\\n')\n"
        "    open(save + '/train.csv', 'w').write(text)\n"
    )
    more = f"--voxceleb_prepare={script}"
    assert train.main(options(small_corpus, tmp_path / "run", more)) == 2
    message = capsys.readouterr().err
    assert "'spk12' is in train.csv and in the trials" in message


def test_missing_yaml_suggests_the_nearest(capsys):
    assert train.main([str(REPOSITORY / "hparams" / "cscc.yaml")]) == 2
    assert "did you mean 'csc.yaml'" in capsys.readouterr().err
    assert train.main([]) == 2
    assert "no YAML file was given" in capsys.readouterr().err


def test_yaml_slips_are_reported_together(tmp_path, capsys):
    text = (REPOSITORY / "hparams" / "csc.yaml").read_text()
    text = text.replace("\nworkers:", "\nworker:").replace(
        "\nmax_grad_norm:", "\nmax_gradnorm:"
    )
    (tmp_path / "csc.yaml").write_text(text)
    assert train.main([str(tmp_path / "csc.yaml")]) == 2
    message = capsys.readouterr().err
    assert "the key 'workers' is missing" in message
    assert "did you mean 'workers'" in message
    assert "did you mean 'max_grad_norm'" in message


def test_verify_names_a_source_that_is_no_run(tmp_path, capsys):
    arguments = [
        str(REPOSITORY / "hparams" / "verify.yaml"),
        f"--source={tmp_path}",
        "--trials=a",
        "--data_folder=b",
        f"--output_folder={tmp_path / 'out'}",
    ]
    assert verify.main(arguments) == 2
    assert "has no hyperparams.yaml" in capsys.readouterr().err
