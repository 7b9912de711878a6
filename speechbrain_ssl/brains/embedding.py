"""The Brain that all methods share."""

import json
import logging
from pathlib import Path
from typing import Any, Optional

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.train_logger import TensorboardLogger

from speechbrain_ssl.brains.start import start_from
from speechbrain_ssl.brains.step import StepBrain
from speechbrain_ssl.checkpoints import RandomState
from speechbrain_ssl.checks import nearest, refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.dataio.views import groups
from speechbrain_ssl.evaluation.verification import TrialList, verify
from speechbrain_ssl.schedules import value_at

logger = logging.getLogger(__name__)


class EmbeddingBrain(StepBrain):
    """Training of an embedding, its validation and its checkpoints.

    A method overrides `embed` (batch to training outputs) and, when its step
    is not "every named loss over embeddings and labels", `terms` (outputs to
    named scalars). What is summed, with which weights, is in the YAML:
    `loss_weights` maps a term's name to a number or a schedule, and
    `embedding_weights` names a file for the embedding model to start from.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        As in `speechbrain.Brain`.
    sampler : object
        Batch sampler with `start_at(epoch, step)`.
    valid_trials : TrialList, optional
        Scored after every epoch; the mean EER over its conditions chooses the
        checkpoint, see `SafeCheckpointer.chosen`. Without it the training
        loss does.

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
    HPARAMS_OPTIONAL: tuple[str, ...] = (
        "weight_decay",
        "checkpoints_kept",
        "clip_each_tensor",
        "tensorboard",
        "embedding_weights",
    )
    TERMS: tuple[str, ...] = ()  # what `terms` can return; empty: modules
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
        if hparams.get("embedding_weights"):
            model = hparams["encoder"].embedding_model
            start_from(model, hparams["embedding_weights"])
        folder = Path(hparams["output_folder"])
        self.record = folder / "history.json"
        self.loggers = [hparams["train_logger"]]
        if hparams.get("tensorboard"):
            self.loggers.append(_tensorboard(folder / "tensorboard"))

    def _check(self, modules, hparams):
        problems = [
            f"modules has no '{name}'{nearest(name, modules)}"
            for name in self.MODULES_NEEDED
            if name not in modules
        ]
        given = {*modules, *hparams}
        known = [name for name in self.TERMS if name in given]
        known = known or [name for name in modules if name != "encoder"]
        problems += [
            f"the YAML has no '{name}'{nearest(name, hparams)}"
            for name in self.HPARAMS_NEEDED
            if name not in hparams
        ]
        problems += [
            f"loss_weights names '{name}', which this {type(self).__name__} "
            f"has not{nearest(name, known)}; it has {', '.join(known)}"
            for name in hparams.get("loss_weights", ())
            if name not in known
        ]
        refuse("the YAML", problems, "Compare with the YAMLs in hparams/.")

    def embed(self, batch: dict[str, torch.Tensor]) -> Any:
        """Training outputs of a batch that is on the device.

        Arguments
        ---------
        batch : dict
            By default of `ViewDataset`: `views_0` (B, V_0, T_0), ...

        Returns
        -------
        torch.Tensor
            By default (B, V, D), from one call of the encoder.
        """
        return self.modules.encoder(*groups(batch))

    def terms(
        self, outputs: Any, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Named scalars of the outputs; `loss_weights` sums them.

        By default every module that `loss_weights` names, called with
        embeddings (B, V, D) and `labels` (B,).
        """
        return {
            name: self.modules[name](outputs, batch["labels"])
            for name in self.hparams.loss_weights
        }

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
            total = total + value_at(weight, self.progress) * value
            self.add(name, value)
        self.add("loss", total)
        return total

    def on_stage_start(self, stage, epoch=None):
        """Place the sampler and empty the sums."""
        if stage == sb.Stage.TRAIN:
            self.random_state.restore(end_of_epoch=True)
            if "positives" in vars(self.hparams):
                self.hparams.positives.prepare(self, epoch)
            self.sampler.start_at(epoch, self.step)
            self.sums, self.first_step = {}, self.step
            self.nonfinite = torch.zeros((), dtype=int, device=self.device)

    def on_fit_start(self):
        """Start, or say from where training goes on."""
        factor, steps = self.grad_accumulation_factor, len(self.sampler)
        problem = f"it is {factor}; an epoch of {steps} steps is no multiple"
        refuse(
            "grad_accumulation_factor",
            [problem] if steps % factor else [],
            "Gradients of an epoch's last steps would be lost: change one of "
            "the two.",
        )
        super().on_fit_start()
        found = self.checkpointer.find_checkpoint()
        if found is not None and if_main_process():
            epoch = found.meta.get("epoch")
            where = f"at step {self.step} of an epoch"
            where = f"after epoch {epoch}" if epoch else where
            print(f"resuming {where}: {found.path}", flush=True)

    def on_fit_batch_start(self, batch, should_step):
        """Restore random states once, set the learning rate."""
        self.random_state.restore(end_of_epoch=False)
        rate = value_at(self.hparams.learning_rate, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        decay = getattr(self.hparams, "weight_decay", None)
        if decay is not None:  # SpeechBrain puts vectors into the first group
            matrices = self.optimizer.param_groups[-1]
            matrices["weight_decay"] = value_at(decay, self.progress)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, validate and save after an epoch."""
        if stage != sb.Stage.TRAIN:
            return
        steps = self.step - self.first_step
        if not steps:  # optimizer_step_limit was reached before
            return
        self._refuse_nonfinite(min(self.nonfinite_patience, steps - 1))
        train = {k: float(v) / steps for k, v in self.sums.items()}
        train.update(self.notes(train))
        rate = value_at(self.hparams.learning_rate, self.progress)
        valid = self._validate()
        meta = {"epoch": epoch, "loss": train["loss"], **valid}
        if self.valid_trials is not None:
            targets = self.valid_trials.trials["target"]
            meta["valid_targets"] = int(targets.sum())
        for train_logger in self.loggers:  # writes on the main process only
            train_logger.log_stats(
                {"epoch": epoch, "lr": rate},
                train_stats=train,
                valid_stats=valid,
            )
        if if_main_process():
            figures = {**train, **valid}
            shown = ", ".join(f"{k} {v:.3f}" for k, v in figures.items())
            logger.info("epoch %d: %s", epoch, shown)
            past = [line for line in self.past() if line["epoch"] < epoch]
            write_json([*past, {"epoch": epoch, **figures}], self.record)
        self.avg_train_loss = 0.0
        self.step = 0  # an end-of-epoch checkpoint starts the next epoch
        self.checkpointer.save_and_keep_only(
            meta=meta,
            num_to_keep=getattr(self.hparams, "checkpoints_kept", 1),
            min_keys=[self.criterion],
            max_keys=["epoch"],
            importance_keys=[self.checkpointer.rank],
        )
        self.judge(self.past())

    def judge(self, epochs: list[dict[str, float]]) -> None:
        """Look at the figures of all epochs; a method may stop here."""

    def past(self) -> list[dict[str, float]]:
        """Figures of every finished epoch."""
        if not self.record.is_file():
            return []
        return json.loads(self.record.read_text(encoding="utf-8"))

    @property
    def criterion(self) -> str:
        """Meta key whose lowest value keeps a checkpoint beside the last."""
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
        """Load the chosen checkpoint and score the list, for metrics.json."""
        self.checkpointer.load_checkpoint(self.checkpointer.chosen())
        return self.verify(trial_list, scores_folder, self.hparams.method)


class _ByEpoch(TensorboardLogger):
    """SpeechBrain's, which counts from one again when a run is resumed."""

    def log_stats(self, stats_meta, train_stats, valid_stats):
        before = stats_meta["epoch"] - 1
        self.global_step = {
            "meta": before,
            "train": dict.fromkeys(train_stats, before),
            "valid": dict.fromkeys(valid_stats, before),
        }
        super().log_stats(stats_meta, train_stats, valid_stats)


def _tensorboard(folder):
    try:
        return _ByEpoch(str(folder))
    except ImportError:
        refuse(
            "tensorboard",
            ["it is True, but the package tensorboard is not installed"],
            "pip install -e '.[tensorboard]', or leave tensorboard False.",
        )
