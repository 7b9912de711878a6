"""The shared step: resuming, checkpoints and schedules, on a small Brain."""

import pytest
import speechbrain as sb
import torch
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checkpoints import SafeCheckpointer
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.pretrained import _chosen

STEPS = 4  # of an epoch


class Killed(Exception):
    pass


class Batches(torch.utils.data.Sampler):
    """Numbers that tell epoch and place."""

    def __init__(self):
        self.start_at(1, 0)

    def start_at(self, epoch, step):
        self.epoch, self.step = epoch, step

    def __len__(self):
        return STEPS - self.step

    def __iter__(self):
        for step in range(self.step, STEPS):
            yield [100 * self.epoch + 2 * step, 100 * self.epoch + 2 * step + 1]


class Items(torch.utils.data.Dataset):
    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        view = torch.randn(2, 8, generator=generator)
        return {"views_0": view, "labels": torch.tensor(number % 2)}


class Square(nn.Module):
    def forward(self, embeddings, labels):
        return embeddings.square().mean()


class SmallBrain(EmbeddingBrain):
    """Dies where `dies` says."""

    dies, rates = None, ()

    def on_fit_batch_start(self, batch, should_step):
        if self.dies == self.optimizer_step:
            raise Killed
        super().on_fit_batch_start(batch, should_step)
        self.rates = (*self.rates, self.optimizer.param_groups[0]["lr"])

    def _validate(self):
        if self.dies == "validation":
            raise Killed
        return super()._validate()


def trained(folder, dies=None, rate=0.1, **options):
    """Weights and Brain after two epochs in a folder, or a kill."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    modules, counter = {"encoder": encoder, "square": Square()}, EpochCounter(2)
    hparams = {
        "method": "small",
        "loss_weights": {"square": 1.0},
        "learning_rate": rate,
        "train_logger": FileTrainLogger(str(folder / "log.txt")),
        "output_folder": str(folder),
        **modules,
    }
    saved = {"encoder": encoder, "counter": counter}
    brain = SmallBrain(
        modules,
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        hparams,
        {"device": "cpu", "noprogressbar": True, **options},
        SafeCheckpointer(folder / "save", saved),
        Batches(),
    )
    brain.dies = dies
    loader = torch.utils.data.DataLoader(Items(), batch_sampler=brain.sampler)
    if dies is None:
        brain.fit(counter, loader)
    else:
        with pytest.raises(Killed):
            brain.fit(counter, loader)
    return encoder[0].weight.detach().clone(), brain


@pytest.mark.parametrize(
    "dies, options",
    [
        (STEPS, {}),  # at the first step of the second epoch
        (STEPS + 2, {}),
        (STEPS + 2, {"ckpt_interval_steps": 1}),
        ("validation", {"ckpt_interval_steps": STEPS}),
        ("validation", {"ckpt_interval_steps": 1}),
    ],
)
def test_a_killed_run_ends_with_the_same_weights(tmp_path, dies, options):
    expected, _ = trained(tmp_path / "whole")
    trained(tmp_path / "killed", dies, **options)
    resumed, _ = trained(tmp_path / "killed", **options)
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


def test_a_run_at_its_limit_of_steps_stays_there(tmp_path):
    first, _ = trained(tmp_path, optimizer_step_limit=STEPS)
    again, brain = trained(tmp_path, optimizer_step_limit=STEPS)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert [line["epoch"] for line in brain.past()] == [1]


def test_schedules_count_batches_whatever_is_accumulated(tmp_path):
    _, brain = trained(
        tmp_path, rate=lambda step: 0.1 / (1 + step), grad_accumulation_factor=2
    )
    expected = [0.1 / (1 + step) for step in (0, 0, 2, 2, 4, 4, 6, 6)]
    assert brain.rates == pytest.approx(expected)


def test_accumulated_gradients_are_never_lost(tmp_path):
    expected, _ = trained(tmp_path / "whole", grad_accumulation_factor=2)
    options = {"grad_accumulation_factor": 2, "ckpt_interval_steps": 1}
    trained(tmp_path / "killed", dies=3, **options)
    resumed, _ = trained(tmp_path / "killed", **options)
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)
    with pytest.raises(BadInputError, match="an epoch of 4 steps"):
        trained(tmp_path / "odd", grad_accumulation_factor=3)


def test_as_many_last_epochs_are_kept_as_asked_for(tmp_path):
    """Checkpoints within epochs, as long ones have, take no place of theirs."""
    _, brain = trained(tmp_path)
    checkpointer = SafeCheckpointer(
        tmp_path / "kept", {"layer": nn.Linear(1, 1)}
    )
    brain.checkpointer = checkpointer
    brain.hparams.checkpoints_kept, brain.step = 3, STEPS
    for epoch, eer in enumerate([0.3, 0.1, 0.2, 0.2, 0.2, 0.2], start=1):
        checkpointer.save_and_keep_only(
            meta={INTRA_EPOCH_CKPT_FLAG: True},
            end_of_epoch=False,
            num_to_keep=1,
            ckpt_predicate=lambda one: INTRA_EPOCH_CKPT_FLAG in one.meta,
        )
        brain._validate = lambda eer=eer: {"valid_eer": eer}
        brain.first_step, brain.step = 0, STEPS
        brain.sums = {"loss": torch.tensor(1.0)}
        brain.on_stage_end(sb.Stage.TRAIN, 0.0, epoch)
    averaged = _chosen(checkpointer, 3)
    assert [one.meta["epoch"] for one in averaged] == [6, 5, 4]
    assert len(_chosen(checkpointer, 4)) == 3  # epoch 3 is missing, not 2
    assert checkpointer.chosen().meta["epoch"] == 2
