"""The Brain that all methods share."""

import json
import logging
import math
from pathlib import Path
from typing import Any, Optional

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from speechbrain_ssl.checkpoints import RandomState
from speechbrain_ssl.checks import nearest, refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.evaluation.verification import TrialList, verify
from speechbrain_ssl.schedules import value_at

logger = logging.getLogger(__name__)


class EmbeddingBrain(sb.Brain):
    """Training of an embedding, its validation and its checkpoints.

    A method overrides `embed` (batch to training outputs) and, when its step
    is not "every named loss over embeddings and labels", `terms` (outputs to
    named scalars). What is summed, with which weights, is in the YAML:
    `loss_weights` maps a term's name to a number or a schedule.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        As in `speechbrain.Brain`.
    sampler : object
        Batch sampler with `start_at(epoch, step)`.
    valid_trials : TrialList, optional
        Scored after every epoch; the mean EER over its conditions chooses the
        checkpoint. Without it the training loss does.

    Raises
    ------
    BadInputError
        If the YAML lacks what the method needs.
    """

    MODULES_NEEDED: tuple[str, ...] = ("encoder",)
    HPARAMS_NEEDED: tuple[str, ...] = (
        "method",
        "loss_weights",
        "learning_rate",
        "train_logger",
        "output_folder",
    )
    TERMS: tuple[str, ...] = ()  # names that `terms` can return
    EVALUATED = "encoder"  # the module that is scored and published

    def __init__(
        self,
        modules,
        opt_class,
        hparams,
        run_opts,
        checkpointer,
        sampler: Any,
        valid_trials: Optional[TrialList] = None,
    ):
        self._check(modules, hparams)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.sampler = sampler
        self.valid_trials = valid_trials
        self.random_state = RandomState()
        if checkpointer is not None:
            checkpointer.add_recoverable("random_state", self.random_state)
        self.record = Path(hparams["output_folder"]) / "history.json"

    def _check(self, modules, hparams):
        problems = [
            f"modules has no '{name}'{nearest(name, modules)}"
            for name in self.MODULES_NEEDED
            if name not in modules
        ]
        problems += [
            f"the YAML has no '{name}'{nearest(name, hparams)}"
            for name in self.HPARAMS_NEEDED
            if name not in hparams
        ]
        problems += [
            f"loss_weights names '{name}', which {type(self).__name__} has "
            f"not{nearest(name, self.TERMS)}; it has {', '.join(self.TERMS)}"
            for name in hparams.get("loss_weights", ())
            if self.TERMS and name not in self.TERMS
        ]
        refuse("the YAML", problems, "Compare with the YAMLs in hparams/.")

    def embed(self, batch: dict[str, torch.Tensor]) -> Any:
        """Training outputs of a batch that is on the device."""
        raise NotImplementedError

    def terms(
        self, outputs: Any, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Named scalars of the outputs; `loss_weights` sums them."""
        raise NotImplementedError

    def notes(self, terms: dict[str, float]) -> dict[str, float]:
        """Further figures to log, computed from an epoch's mean terms."""
        return {}

    def compute_forward(self, batch, stage):
        """Move the batch and embed it."""
        batch.update(
            (name, value.to(self.device, non_blocking=True))
            for name, value in batch.items()
        )
        return self.embed(batch)

    def compute_objectives(self, predictions, batch, stage):
        """Weighted sum of the method's terms; sums them for the log."""
        total = 0.0
        for name, value in self.terms(predictions, batch).items():
            weight = self.hparams.loss_weights.get(name, 0.0)
            total = total + value_at(weight, self.optimizer_step) * value
            past = self.sums.get(name, 0.0)
            self.sums[name] = past + value.detach()  # stays on the device
        return total

    def on_stage_start(self, stage, epoch=None):
        """Place the sampler and empty the sums."""
        if stage == sb.Stage.TRAIN:
            self.sampler.start_at(epoch, self.step)
            self.sums, self.first_step = {}, self.step

    def on_fit_start(self):
        """Start, or say from where training goes on."""
        super().on_fit_start()
        found = self.checkpointer.find_checkpoint()
        if found is not None and if_main_process():
            epoch, step = found.meta.get("epoch"), self.step
            where = (
                f"after epoch {epoch}"
                if epoch
                else f"at step {step} of an epoch"
            )
            print(f"resuming {where}: {found.path}", flush=True)

    def on_fit_batch_start(self, batch, should_step):
        """Restore random states once, set the learning rate."""
        self.random_state.restore()
        rate = value_at(self.hparams.learning_rate, self.optimizer_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, validate and save after an epoch."""
        if stage != sb.Stage.TRAIN:
            return
        steps = max(1, self.step - self.first_step)
        train = {k: float(v) / steps for k, v in self.sums.items()}
        if not all(map(math.isfinite, train.values())):
            refuse(
                f"training stopped in epoch {epoch}",
                [f"the mean of '{k}' is {v}" for k, v in train.items()],
                "Lower the learning rate or max_grad_norm; the last "
                "checkpoint is kept.",
            )
        train.update(self.notes(train))
        train["loss"] = float(stage_loss)
        rate = value_at(self.hparams.learning_rate, self.optimizer_step)
        valid = self._validate()
        meta = {"epoch": epoch, "loss": train["loss"], **valid}
        if if_main_process():
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": rate},
                train_stats=train,
                valid_stats=valid,
            )
            logger.info(
                "epoch %d: %s",
                epoch,
                ", ".join(
                    f"{k} {v:.3f}" for k, v in {**train, **valid}.items()
                ),
            )
            past = [line for line in self.past() if line["epoch"] < epoch]
            write_json([*past, {"epoch": epoch, **train, **valid}], self.record)
        self.avg_train_loss = 0.0
        self.step = 0  # an end-of-epoch checkpoint starts the next epoch
        self.checkpointer.save_and_keep_only(
            meta=meta, num_to_keep=1, min_keys=[self.criterion]
        )

    def past(self) -> list[dict[str, float]]:
        """Figures of every finished epoch."""
        if not self.record.is_file():
            return []
        return json.loads(self.record.read_text(encoding="utf-8"))

    def best_epoch(self) -> int:
        """The epoch whose checkpoint is evaluated."""
        found = self.checkpointer.find_checkpoint(min_key=self.criterion)
        return int(found.meta["epoch"])

    @property
    def criterion(self) -> str:
        """Meta key whose lowest value chooses the checkpoint."""
        return "loss" if self.valid_trials is None else "valid_eer"

    @property
    def evaluated(self) -> torch.nn.Module:
        """The module that is scored, without a distributed wrapper."""
        return getattr(self.hparams, self.EVALUATED)

    def _validate(self):
        if self.valid_trials is None:
            return {}
        figures = {}
        if if_main_process():
            report = self.verify(self.valid_trials, label="valid", show=False)
            figures = {
                f"valid_eer_{name}": float(values["eer"])
                for name, values in report.items()
            }
            figures["valid_eer"] = sum(figures.values()) / len(figures)
        ddp_barrier()
        return figures

    def verify(
        self, trial_list: TrialList, scores_folder=None, label="", show=True
    ) -> dict[str, dict]:
        """Score a trial list with the evaluated module; see `verify`."""
        return verify(
            self.evaluated, trial_list, self.device, scores_folder, label, show
        )

    def report(self, trial_list: TrialList, scores_folder) -> dict[str, dict]:
        """Load the best checkpoint and score the list, for metrics.json."""
        self.on_evaluate_start(min_key=self.criterion)
        return self.verify(trial_list, scores_folder, self.hparams.method)
