"""Training on labels that may be wrong, from weights that are given."""

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch.nn import functional as F

from speechbrain_ssl.brains.aam_supcon import AAMBrain
from speechbrain_ssl.checks import check_installed, check_sizes


@register_checkpoint_hooks
class LossGate:
    """Tells right labels from wrong ones by the loss of each utterance.

    Networks learn right labels first, so early losses fall into two groups:
    a mixture of two normal distributions is fitted, and utterances that
    belong to the one with the higher mean are left out, or relabelled where
    the model is sure of another class.

    Source: Arazo et al., "Unsupervised label noise modeling", ICML 2019,
    arXiv:1904.11238; for speakers, the loss gate of Tao et al., ICASSP 2022,
    arXiv:2110.03869.

    Differs: decided once; normal distributions instead of beta ones.

    Arguments
    ---------
    utterances : int
        N.

    Example
    -------
    >>> gate = LossGate(6)
    >>> losses = torch.tensor([0.1, 0.2, 0.15, 5.0, 6.0, 5.5])
    >>> sure = torch.tensor([0.9, 0.9, 0.9, 0.4, 0.95, 0.4])
    >>> gate.add(torch.arange(6), losses, torch.full((6,), 3), sure)
    >>> gate.decide(np.array([0, 1, 2, 0, 1, 2]), correct_above=0.9)
    >>> gate.kept.tolist(), gate.labels.tolist()
    ([0, 1, 2, 4], [0, 1, 2, 0, 3, 2])
    """

    def __init__(self, utterances: int):
        self.losses = torch.zeros(utterances)
        self.visits = torch.zeros(utterances)
        self.guesses = torch.zeros(utterances, dtype=torch.long)
        self.sure = torch.zeros(utterances)
        self.kept = self.labels = None

    def add(
        self,
        rows: torch.Tensor,
        losses: torch.Tensor,
        guesses: torch.Tensor,
        sure: torch.Tensor,
    ) -> None:
        """Note a batch; nothing is read from the device.

        Arguments
        ---------
        rows : torch.Tensor
            (B,) row numbers.
        losses : torch.Tensor
            (B,) nats.
        guesses : torch.Tensor
            (B,) most probable classes.
        sure : torch.Tensor
            (B,) their probabilities.
        """
        if self.losses.device != rows.device:
            for name in ("losses", "visits", "guesses", "sure"):
                setattr(self, name, getattr(self, name).to(rows.device))
        self.losses.index_add_(0, rows, losses)
        self.visits.index_add_(0, rows, torch.ones_like(losses))
        self.guesses[rows], self.sure[rows] = guesses, sure

    def forget(self) -> None:
        """Empty the sums: an epoch begins."""
        self.losses.zero_()
        self.visits.zero_()

    def decide(self, labels: np.ndarray, correct_above: float) -> None:
        """Set `labels` and `kept`, the rows that are trained on from now on.

        Arguments
        ---------
        labels : numpy.ndarray
            (N,) of now.
        correct_above : float
            Probability of another class from which on it becomes the label of
            an utterance that would be left out; 1 corrects none.
        """
        from sklearn.mixture import GaussianMixture

        visits = self.visits.cpu().numpy()
        seen = np.flatnonzero(visits)
        losses = (self.losses.cpu().numpy()[seen] / visits[seen])[:, None]
        mixture = GaussianMixture(2, random_state=0).fit(losses)
        low = mixture.means_.argmin()
        wrong = mixture.predict(losses) != low
        # a wide low group may claim the highest losses, and the other way
        wrong &= losses[:, 0] > mixture.means_[low]
        gated = seen[wrong]
        guesses, sure = self.guesses.cpu().numpy(), self.sure.cpu().numpy()
        corrected = gated[sure[gated] > correct_above]
        self.labels = labels.copy()
        self.labels[corrected] = guesses[corrected]
        out = np.setdiff1d(gated, corrected)
        self.kept = np.setdiff1d(np.arange(len(labels)), out)

    @mark_as_saver
    def save(self, path):
        """Write sums and decision as tensors."""
        state = {
            name: None if value is None else torch.as_tensor(value)
            for name, value in vars(self).items()
        }
        torch.save(state, path)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read what `save` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("kept", "labels"):
            if state[name] is not None:
                state[name] = state[name].numpy()
        vars(self).update(state)


class PseudoLabelBrain(AAMBrain):
    """Margin softmax over clusters: the head first, then everything.

    For `head_steps` steps the encoder stands still. After `gate_epoch` epochs
    utterances whose loss says that their label is wrong are left out or
    relabelled (`LossGate`); 0 keeps all as they are.

    Source: Cho et al. 2022, arXiv:2208.05413, section 3; see `LossGate`.
    """

    HPARAMS_NEEDED = (
        *AAMBrain.HPARAMS_NEEDED,
        "head_steps",
        "gate_epoch",
        "correct_above",
    )

    def __init__(self, modules, opt_class, hparams, *rest, sampler, **more):
        super().__init__(
            modules, opt_class, hparams, *rest, sampler=sampler, **more
        )
        share = hparams["correct_above"]
        check_sizes(
            correct_above=(0 <= share <= 1, share, "0 to 1"),
            gate_epoch=(
                not (hparams["gate_epoch"] and sampler.processes > 1),
                hparams["gate_epoch"],
                "0 with several processes",
            ),
        )
        self.gate = None
        if hparams["gate_epoch"]:
            check_installed("sklearn", extra="pseudo")
            self.gate = LossGate(len(sampler.entries))
            self.checkpointer.add_recoverable("gate", self.gate)

    def on_fit_start(self):
        """Also put a decision of before in force."""
        super().on_fit_start()
        self._follow_gate()

    def on_stage_start(self, stage, epoch=None):
        """Also empty the gate's sums, but not within an epoch."""
        super().on_stage_start(stage, epoch)
        if self.gate is not None and self.step == 0:
            self.gate.forget()

    def embed(self, batch):
        """Embeddings; the encoder as it is while only the head learns."""
        learning = self.progress >= self.hparams.head_steps
        self.modules.encoder.train(learning)
        with torch.set_grad_enabled(learning):
            return super().embed(batch)

    def terms(self, outputs, batch):
        """Also note each utterance's loss for the gate."""
        if self.gate is not None:
            self._watch(outputs.detach(), batch)
        return super().terms(outputs, batch)

    @torch.no_grad()
    def _watch(self, embeddings, batch):
        aam = self.hparams.aam
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = F.normalize(embeddings.float(), dim=-1)  # (B, V, D)
            centres = F.normalize(aam.weight.float(), dim=-1)
            cosines = torch.einsum("bvd,csd->bvcs", rows, centres).amax(-1)
            shares = (aam.scale * cosines).softmax(-1).mean(1)  # (B, classes)
        sure, guesses = shares.max(1)
        right = shares.gather(1, batch["labels"][:, None])[:, 0]
        losses = -right.clamp(min=1e-12).log()
        self.gate.add(batch["rows"], losses, guesses, sure)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Also decide who stays, once."""
        if self.gate is not None and epoch == self.hparams.gate_epoch:
            self.gate.decide(self.sampler.entries, self.hparams.correct_above)
            self._follow_gate()
        super().on_stage_end(stage, stage_loss, epoch)

    def _follow_gate(self):
        if self.gate is None or self.gate.kept is None:
            return
        # in place: the examples have the same array
        self.sampler.entries[:] = self.gate.labels
        self.sampler.keep(self.gate.kept)

    def notes(self, terms):
        """Share of utterances that are trained on."""
        if self.gate is None or self.gate.kept is None:
            return {}
        count = len(self.sampler.entries)
        return {"kept": len(self.gate.kept) / count}
