"""What a user runs with DINO and NT-Xent; and bad input."""

import json

import pytest
import soundfile as sf
import torch
from conftest import (
    REPOSITORY,
    TINY_VIEWS,
    command_line,
    dino_options,
    newest_weights,
)

import train
import verify
from speechbrain_ssl.brains.dino import DINOBrain
from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.pretrained import Pretrained


@pytest.fixture(scope="module")
def trained(small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "dino"
    assert train.main(dino_options(small_corpus, folder)) == 0
    return folder


def test_a_run_logs_the_collapse_watch(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["method"] == "dino"
    assert metrics["trials"]["clean"]["targets"] == 4
    history = json.loads((trained / "history.json").read_text())
    assert [line["epoch"] for line in history] == [1, 2]
    assert metrics["last_epoch"] == history[-1]
    for line in history:
        assert line["kl"] == pytest.approx(
            line["dino"] - line["teacher_entropy"]
        )
        assert 1 <= line["prototypes_in_use"] <= 32
        assert 0 < line["top_prototype_share"] <= 1
        assert {"mean_cosine", "effective_rank", "valid_eer"} <= set(line)
    log = (trained / "train_log.txt").read_text()
    assert "teacher_entropy" in log and "effective_rank" in log


def test_verify_scores_the_teacher_or_the_student(
    trained, small_corpus, tmp_path, capsys
):
    arguments = [
        str(REPOSITORY / "hparams" / "verify.yaml"),
        f"--source={trained}",
        f"--trials={small_corpus / 'trials.txt'}",
        f"--data_folder={small_corpus}",
        "--device=cpu",
        "--sirs_db=[]",
    ]
    assert verify.main([*arguments, f"--output_folder={tmp_path}"]) == 0
    here = (tmp_path / "scores" / "clean.txt").read_text()
    assert here == (trained / "scores" / "clean.txt").read_text()
    teacher, student = (
        newest_weights(trained, name) for name in ("teacher", "encoder")
    )
    name = "embedding_model.fc.conv.weight"
    assert not torch.equal(teacher[f"encoder.{name}"], student[name])
    out = tmp_path / "student"
    arguments += ["--network=encoder", f"--output_folder={out}"]
    assert verify.main(arguments) == 0
    line = (out / "scores" / "clean.txt").read_text().splitlines()[0]
    _, *pair, score = line.split()
    encoder = Pretrained(trained, network="encoder").encoder
    assert type(encoder) is ViewEncoder
    waves = [
        torch.as_tensor(
            sf.read(small_corpus / "wav" / name, dtype="float32")[0]
        )
        for name in pair
    ]
    with torch.no_grad():
        embeddings = [encoder(wave[None])[0] for wave in waves]
    cosine = torch.cosine_similarity(*embeddings, dim=0)
    assert float(score) == pytest.approx(cosine.item(), abs=1e-4)
    assert line != here.splitlines()[0]
    assert verify.main([*arguments, "--network=head"]) == 2
    assert "--network is given more than once" in capsys.readouterr().err
    arguments[-2] = "--network=head"
    assert verify.main(arguments) == 2
    assert "it has encoder and teacher" in capsys.readouterr().err


def test_a_killed_run_resumes_to_the_same_weights(
    trained, small_corpus, tmp_path, monkeypatch, capsys
):
    class Killed(Exception):
        pass

    after = DINOBrain.on_fit_batch_end

    def kill(brain, *inputs):
        if brain.optimizer_step == 5:  # the second step of epoch 2
            raise Killed
        after(brain, *inputs)

    monkeypatch.setattr(DINOBrain, "on_fit_batch_end", kill)
    arguments = dino_options(
        small_corpus,
        tmp_path / "run",
        "--ckpt_interval_steps=1",
        "--ckpt_interval_minutes=0",
    )
    with pytest.raises(Killed):
        train.main(arguments)
    monkeypatch.undo()
    assert train.main(arguments) == 0
    assert "resuming at step 1" in capsys.readouterr().out
    for module in ("encoder", "head", "teacher", "dino"):
        ours, theirs = (
            newest_weights(folder, module)
            for folder in (tmp_path / "run", trained)
        )
        assert len(ours) >= 1
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), (module, name)


def test_prototypes_are_frozen_at_first(small_corpus, tmp_path, monkeypatch):
    seen = []
    after = DINOBrain.on_fit_batch_end

    def look(brain, *inputs):
        weights = brain.hparams.head.prototypes.parametrizations.weight
        seen.append(weights.original1.detach().clone())
        after(brain, *inputs)

    monkeypatch.setattr(DINOBrain, "on_fit_batch_end", look)
    more = ["--number_of_epochs=1", "--prototype_freeze_steps=2"]
    run = dino_options(small_corpus, tmp_path / "run", *more)
    assert train.main(run) == 0
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_nt_xent_trains_on_the_same_views(small_corpus, tmp_path):
    arguments = command_line(
        "ntxent.yaml", small_corpus, tmp_path / "run", *TINY_VIEWS
    )
    assert train.main(arguments) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["method"] == "ntxent" and "clean" in metrics["trials"]


@pytest.mark.parametrize(
    ("recipe", "channels"),
    [("dino_paper", "[4,4,8,8]"), ("dino_ecapa", "[8,8,8,8,24]")],
)
def test_recipes_train_when_made_small(
    recipe, channels, small_corpus, tmp_path
):
    arguments = dino_options(
        small_corpus,
        tmp_path / "run",
        f"--channels={channels}",
        "--number_of_epochs=1",
    )
    yaml = REPOSITORY / "recipes/VoxCeleb/hparams" / f"{recipe}.yaml"
    assert train.main([str(yaml), *arguments[1:]]) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert "variance" not in history[0]


def test_bfloat16_training_agrees_with_float32(small_corpus, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        more = ["--number_of_epochs=1", f"--precision={precision}"]
        assert train.main(dino_options(small_corpus, folder, *more)) == 0
        history = json.loads((folder / "history.json").read_text())
        losses.append(history[0]["dino"])
    # three steps of a loss near ln 32 = 3.5 with 8 bits of mantissa
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
    assert losses[1] != losses[0]


def test_a_bad_batch_leaves_the_weights_whole(
    small_corpus, tmp_path, monkeypatch
):
    terms = DINOBrain.terms

    def poison(brain, outputs, batch):
        named = terms(brain, outputs, batch)
        if brain.optimizer_step == 1:
            named["dino"] = named["dino"] * float("nan")
        return named

    monkeypatch.setattr(DINOBrain, "terms", poison)
    folder = tmp_path / "run"
    assert train.main(dino_options(small_corpus, folder)) == 0
    for module in ("encoder", "teacher"):
        for value in newest_weights(folder, module).values():
            assert torch.isfinite(value).all()


def test_a_loss_that_stays_bad_stops_training(
    small_corpus, tmp_path, monkeypatch, capsys
):
    terms = EmbeddingBrain.terms

    def poison(brain, outputs, batch):
        named = terms(brain, outputs, batch)
        return {name: value / 0 for name, value in named.items()}

    monkeypatch.setattr(EmbeddingBrain, "terms", poison)
    arguments = command_line(
        "ntxent.yaml", small_corpus, tmp_path / "run", *TINY_VIEWS
    )
    assert train.main(arguments) == 2
    assert "3 steps of this epoch had a loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prototypes=4"], "prototypes is 4; a batch has 16 teacher views"),
        (["--teacher_temperature=0.5"], "at most the student's, 0.1"),
        (["--teacher_temperature=0"], "teacher_temperature is 0"),
        (["--student_temperature=3"], "student_temperature is 3"),
        (["--first_momentum=1.2"], "teacher_momentum is 1.2 at step 0"),
        (["--short_seconds=1.5", "--long_seconds=2"], "the shortest crop has"),
        (["--batch_size=400"], "needs 400 utterances, the corpus has"),
        (["--head_batch_norn=True"], "did you mean 'head_batch_norm'"),
    ],
)
def test_bad_input_is_one_clear_error_before_training(
    more, message, small_corpus, tmp_path, capsys
):
    assert train.main(dino_options(small_corpus, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "history.json").exists()
