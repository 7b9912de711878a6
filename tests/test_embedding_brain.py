"""What EmbeddingBrain adds to SpeechBrain's step."""

import contextlib
import json
import math

import pytest
import torch
from conftest import command_line, dino_options, newest_weights
from torch.utils._python_dispatch import TorchDispatchMode

import train
from speechbrain_ssl.brains.embedding import EmbeddingBrain


class Reads(TorchDispatchMode):
    """Counts values read from a tensor into Python: waits on a GPU."""

    def __init__(self):
        super().__init__()
        self.count, self.off = 0, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "aten.equal.", "aten.nonzero.")
        if any(name in str(function) for name in waits) and not self.off:
            self.count += 1
        return function(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def paused(self):
        self.off = True
        yield
        self.off = False


@pytest.mark.parametrize("method", ["dino", "csc", "ntxent"])
def test_a_step_reads_nothing_back_from_the_device(
    method, small_corpus, tmp_path, monkeypatch
):
    reads, steps = Reads(), []
    fit_batch = EmbeddingBrain.fit_batch

    def watched(brain, batch):
        step = brain.optimizer.step

        def optimiser_step(*inputs):
            with reads.paused():  # Adam keeps its step count on the CPU
                return step(*inputs)

        monkeypatch.setattr(brain.optimizer, "step", optimiser_step)
        with reads:
            loss = fit_batch(brain, batch)
        monkeypatch.setattr(brain.optimizer, "step", step)
        steps.append(reads.count)
        return loss

    monkeypatch.setattr(EmbeddingBrain, "fit_batch", watched)
    more = ["--number_of_epochs=1"]
    if method == "csc":
        more += ["--identities_per_batch=4", "--crop_seconds=0.5"]
        more += ["--mask_channels=8", "--sirs_db=[]", "--valid_sirs_db=[]"]
    else:
        more += ["--batch_size=8", "--long_seconds=0.5", "--short_seconds=0.25"]
    folder = tmp_path / "run"
    run = command_line(f"{method}.yaml", small_corpus, folder, *more)
    assert train.main(run) == 0
    assert steps == [0, 0, 0]
    with reads:
        float(torch.ones(()))
    assert reads.count == 1  # the watch can see a read


class Clipped(EmbeddingBrain):
    """Only what `clip` reads."""

    def __init__(self, **hparams):
        self.hparams = type("Hparams", (), hparams)()
        self.max_grad_norm = 1.0
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.nonfinite = torch.zeros((), dtype=int)


def slow_clip(gradients, most):
    """Scaled by the norm of all values."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    return [g * min(1, most / (norm + 1e-6)) for g in gradients]


def with_gradients(*gradients):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    return parameters


def test_clipping_is_over_all_tensors_or_each():
    torch.manual_seed(0)
    gradients = [torch.randn(n, 3) * 10**i for i, n in enumerate((1, 4, 2))]
    gradients[0] /= 100  # below the limit on its own
    expected = {
        False: slow_clip(gradients, 1.0),
        True: [slow_clip([g], 1.0)[0] for g in gradients],
    }
    for each in (False, True):
        parameters = with_gradients(*gradients)
        Clipped(clip_each_tensor=each).clip(parameters)
        for parameter, gradient in zip(parameters, expected[each]):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("each", [False, True])
def test_one_bad_value_makes_the_whole_gradient_zero(bad, each):
    parameters = with_gradients(torch.ones(3), torch.tensor([1.0, bad]))
    brain = Clipped(clip_each_tensor=each)
    brain.clip(parameters)
    assert all((p.grad == 0).all() for p in parameters)
    assert int(brain.nonfinite) == 1


@pytest.mark.parametrize("method", ["dino", "ntxent"])
def test_a_batch_that_is_not_finite_leaves_everything_whole(
    method, small_corpus, tmp_path, monkeypatch
):
    embed, brains = EmbeddingBrain.compute_forward, []

    def loud(brain, batch, stage):
        if brain.optimizer_step == 1:
            batch["views_0"][0] *= 1e30
            brains.append(brain)
        return embed(brain, batch, stage)

    monkeypatch.setattr(EmbeddingBrain, "compute_forward", loud)
    more = ["--batch_size=8", "--long_seconds=0.5", "--short_seconds=0.25"]
    more += ["--number_of_epochs=1", "--nonfinite_patience=1"]
    folder = tmp_path / "run"
    run = command_line(f"{method}.yaml", small_corpus, folder, *more)
    assert train.main(run) == 0
    names = ["encoder", *["teacher", "dino", "head"] * (method == "dino")]
    for name in names:
        for place, value in newest_weights(folder, name).items():
            assert torch.isfinite(value).all(), (name, place)
    assert [int(brain.nonfinite) for brain in brains] == [1]


def test_weight_decay_spares_vectors_and_follows_its_schedule(
    small_corpus, tmp_path, monkeypatch
):
    seen = []
    start = EmbeddingBrain.on_fit_batch_start

    def look(brain, *inputs):
        start(brain, *inputs)
        groups = brain.optimizer.param_groups
        seen.append([(g["weight_decay"], g["lr"]) for g in groups])
        assert all(p.dim() == 1 for p in groups[0]["params"])
        assert all(p.dim() > 1 for p in groups[1]["params"])

    monkeypatch.setattr(EmbeddingBrain, "on_fit_batch_start", look)
    more = ["--number_of_epochs=1", "--weight_decay=0.5", "--peak_rate=0.06"]
    assert train.main(dino_options(small_corpus, tmp_path / "r", *more)) == 0
    assert [step[0][0] for step in seen] == [0.0] * 3
    assert [step[1][0] for step in seen] == [0.5] * 3
    rates = [step[0][1] for step in seen]
    assert rates == pytest.approx([0.0, 0.001, 0.002])  # warm-up of 60


def test_tensorboard_gets_every_figure(small_corpus, tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    folder = tmp_path / "run"
    for epochs in (1, 2):  # the second goes on with the first
        more = [f"--number_of_epochs={epochs}", "--tensorboard=True"]
        assert train.main(dino_options(small_corpus, folder, *more)) == 0
    record = events.EventAccumulator(str(folder / "tensorboard"))
    record.Reload()
    history = json.loads((folder / "history.json").read_text())
    entropies = [epoch["teacher_entropy"] for epoch in history]
    scalars = record.Scalars("teacher_entropy/train")
    assert [s.value for s in scalars] == pytest.approx(entropies, rel=1e-5)
    for name in ("teacher_entropy/train", "valid_eer/valid", "lr"):
        assert [s.step for s in record.Scalars(name)] == [1, 2]
    assert "effective_rank/train" in record.Tags()["scalars"]
