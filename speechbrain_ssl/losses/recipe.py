"""Losses of this package inside SpeechBrain's own speaker recipes."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import nn

from speechbrain_ssl.checks import check_sizes


class RecipeCost(nn.Module):
    """Sum of losses, called as SpeechBrain's recipes call `compute_cost`.

    The recipe's classifier is an Identity, so that what arrives is the
    embeddings. Losses with parameters also belong into `modules`.

    Arguments
    ---------
    losses : sequence of torch.nn.Module
        Called with (B, V, D) embeddings and (B,) labels: `AAMLoss`,
        `SupConLoss`.
    reduction : str
        `mean` for training, `batch` for SpeechBrain's MetricStats: the same
        mean once for each row.

    Raises
    ------
    BadInputError
        If `reduction` is neither.

    Example
    -------
    >>> from speechbrain_ssl.losses.aam_supcon import SupConLoss
    >>> cost = RecipeCost([SupConLoss()])
    >>> cost(torch.randn(4, 1, 8), torch.tensor([[0], [1], [0], [1]])).shape
    torch.Size([])
    """

    def __init__(self, losses: Sequence[nn.Module], reduction: str = "mean"):
        super().__init__()
        check_sizes(
            reduction=(
                reduction in ("mean", "batch"),
                reduction,
                "mean or batch",
            )
        )
        self.losses = nn.ModuleList(losses)
        self.reduction = reduction

    def forward(
        self,
        embeddings: torch.Tensor,
        targets: torch.Tensor,
        lengths: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """Sum of the losses.

        Arguments
        ---------
        embeddings : torch.Tensor
            (B, 1, D).
        targets : torch.Tensor
            (B, 1) integers.
        lengths : torch.Tensor, optional
            Not used.

        Returns
        -------
        torch.Tensor
            Scalar, or (B,).
        """
        total = sum(loss(embeddings, targets[:, 0]) for loss in self.losses)
        return total if self.reduction == "mean" else total.expand(len(targets))
