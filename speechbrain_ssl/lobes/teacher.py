"""The teacher of DINO: a copy that follows the student."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from speechbrain_ssl.checks import check_sizes


class Teacher(nn.Module):
    """Exponential moving average of a student's encoder and head.

    What is scored, saved and published is this module: called with waveforms
    it gives the teacher's embeddings. It starts as an exact copy and has no
    gradients.

    Source: Cho et al. 2022, arXiv:2208.05413: parameters follow the student
    after every step; the authors' code leaves the batch-norm statistics to
    the teacher (`own`).

    Differs: under distributed training each process has statistics of its own
    batches (the authors synchronise them); those of the main one are saved.

    Arguments
    ---------
    encoder, head : torch.nn.Module
        Of the student; copied.
    batch_norm : str
        `own`: the teacher runs in training mode and gathers its own running
        statistics. `follow`: it runs in evaluation mode with an average of
        the student's.

    Raises
    ------
    BadInputError
        If `batch_norm` is neither.

    Example
    -------
    >>> encoder, head = nn.Linear(4, 3), nn.Linear(3, 8)
    >>> teacher = Teacher(encoder, head)
    >>> teacher(torch.randn(2, 4)).shape
    torch.Size([2, 3])
    >>> teacher.follow(encoder, head, momentum=0.996)
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, batch_norm: str = "own"
    ):
        super().__init__()
        check_sizes(
            batch_norm=(
                batch_norm in ("own", "follow"),
                batch_norm,
                "own or follow",
            )
        )
        self.batch_norm = batch_norm
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.head = copy.deepcopy(head).requires_grad_(False)

    def train(self, mode: bool = True) -> "Teacher":
        """Training mode reaches the layers only with statistics of its own."""
        super().train(mode and self.batch_norm == "own")
        self.training = mode
        return self

    @property
    def takes_lengths(self) -> bool:
        """Whether the encoder takes padded waveforms."""
        return getattr(self.encoder, "takes_lengths", False)

    def forward(self, *waves: torch.Tensor, **more: Any) -> torch.Tensor:
        """Embeddings; see the encoder."""
        return self.encoder(*waves, **more)

    @torch.no_grad()
    def both(self, *waves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and logits of the views of a step.

        Arguments
        ---------
        *waves : torch.Tensor
            Groups (B, U_i, T_i).

        Returns
        -------
        tuple of torch.Tensor
            (U, B, D) and (U, B, K).
        """
        embeddings = self.encoder(*waves).transpose(0, 1)
        return embeddings, self.head(embeddings)

    @torch.no_grad()
    def follow(
        self, encoder: nn.Module, head: nn.Module, momentum: float
    ) -> None:
        """Move towards the student in one fused update.

        Arguments
        ---------
        encoder, head : torch.nn.Module
            Of the student, without distributed wrappers.
        momentum : float
            Share of the teacher that is kept, 0 to 1.

        Raises
        ------
        ValueError
            If momentum is outside 0 to 1.
        """
        average = get_ema_multi_avg_fn(momentum)
        pairs = ((self.encoder, encoder), (self.head, head))
        ours = [p for mine, _ in pairs for p in mine.parameters()]
        theirs = [p.detach() for _, its in pairs for p in its.parameters()]
        average(ours, theirs, None)
        if self.batch_norm == "follow":
            ours = [b for mine, _ in pairs for b in mine.buffers()]
            theirs = [b for _, its in pairs for b in its.buffers()]
            for mine, its in zip(ours, theirs):
                if mine.is_floating_point():
                    mine.lerp_(its, 1 - momentum)
                else:
                    mine.copy_(its)
