"""The training step that all methods share."""

from typing import Any

import speechbrain as sb
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from speechbrain_ssl.checks import refuse

LOG_STEPS = 50  # between two readings of the loss from the device


class StepBrain(sb.Brain):
    """A step as in SpeechBrain that reads nothing back from the device.

    `sums` holds the figures of the epoch, `first_step` the step that it began
    at, `nonfinite` how many steps were skipped, `sampler` the batches.
    """

    sampler: Any

    @property
    def progress(self) -> int:
        """Batches that the weights have learned from; schedules count them."""
        return self.optimizer_step * self.grad_accumulation_factor

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """As in SpeechBrain, but for three things.

        Not after an epoch's last step, which on_stage_end saves, nor between
        steps whose gradients are summed. Distributed processes ask the clock
        of the main one, which waits for it, once in `LOG_STEPS` updates.
        """
        ending = self.step - self.first_step == len(self.sampler)
        updates, rest = divmod(self.step, self.grad_accumulation_factor)
        if ending or rest:
            return False
        due = 0 < self.ckpt_interval_steps <= steps_since_ckpt
        if due or (self.distributed_launch and updates % LOG_STEPS):
            return due
        return super()._should_save_intra_epoch_ckpt(
            last_ckpt_time, steps_since_ckpt
        )

    def _wrap_distributed(self):
        """As in SpeechBrain, but on CPU, where torch cannot synchronise batch
        norm, each process keeps the statistics of its own batches.
        """
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = DistributedDataParallel(module)

    def add(self, name: str, value: torch.Tensor) -> None:
        """Sum a scalar for the epoch's mean; it stays on the device.

        Arguments
        ---------
        name : str
            Of the figure in the log.
        value : torch.Tensor
            Scalar; what is not finite counts as 0.
        """
        value = value.detach()
        finite = torch.isfinite(value)
        value = torch.where(finite, value, 0.0)
        self.sums[name] = self.sums.get(name, 0.0) + value
        if name == "loss" and self.scaler.is_enabled():
            self.nonfinite = self.nonfinite + ~finite  # else `clip` counts

    def statistics(self) -> list[torch.Tensor]:
        """What forward passes change, such as the averages of batch norm."""
        return [b for b in self.modules.buffers() if b.is_floating_point()]

    def fit_batch(self, batch):
        """One step as in SpeechBrain, without waiting for the device.

        A batch whose loss is not finite leaves `statistics` as they were, and
        by `optimizers_step` the weights.

        Arguments
        ---------
        batch : dict
            Of the loader.

        Returns
        -------
        torch.Tensor
            Detached loss on the device.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        statistics = self.statistics()
        before = [statistic.clone() for statistic in statistics]
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            share = loss / self.grad_accumulation_factor
            self.scaler.scale(share).backward()
        whole = torch.isfinite(loss.detach())
        for statistic, old in zip(statistics, before):
            statistic.copy_(torch.where(whole, statistic, old))
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach()

    def optimizers_step(self):
        """Clip over all parameters, then step.

        A gradient that is not finite becomes zero, all of it, so that a bad
        batch leaves the weights whole.

        Differs from SpeechBrain, which clips the first parameter group only
        and reads every gradient back from the device to check it.
        """
        self.scaler.unscale_(self.optimizer)
        self.clip([p for p in self.modules.parameters() if p.grad is not None])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def clip(self, parameters: list[torch.nn.Parameter]) -> None:
        """Scale gradients in place to a norm of at most `max_grad_norm`.

        Arguments
        ---------
        parameters : list of torch.nn.Parameter
            With gradients. The norm is that of all of them, or with
            `clip_each_tensor` each tensor's own.
        """
        each = getattr(self.hparams, "clip_each_tensor", False)
        clipped = [[p] for p in parameters] if each else [parameters]
        norms = [clip_grad_norm_(p, self.max_grad_norm) for p in clipped]
        if self.scaler.is_enabled():  # skips steps that are not finite itself
            return
        bad = ~torch.isfinite(torch.stack(norms)).all()
        self.nonfinite = self.nonfinite + bad
        for parameter in parameters:
            parameter.grad.masked_fill_(bad, 0.0)

    def update_average(self, loss, avg_loss):
        """Mean loss, read from the device once in `LOG_STEPS` steps."""
        done = self.step - self.first_step
        if done % LOG_STEPS != 1:
            return avg_loss
        self._refuse_nonfinite(self.nonfinite_patience)
        return float(self.sums["loss"]) / done

    def _refuse_nonfinite(self, most):
        count = int(self.nonfinite)
        problem = (
            f"{count} steps of this epoch had a loss or gradient not finite"
        )
        refuse(
            "training stopped",
            [problem] if count > most else [],
            "Lower the learning rate or max_grad_norm; the last checkpoint is "
            "kept.",
        )
