"""A separative encoder in the place of an ordinary embedding model."""

from typing import Optional

import torch
from torch import nn


class LoudestSlot(nn.Module):
    """Waveforms to the embedding of each one's loudest slot.

    What a published CSC model has where SpeechBrain's interfaces expect the
    embedding model; the separative encoder stays within reach as `encoder`.

    Arguments
    ---------
    encoder : torch.nn.Module
        (B, T) waveforms to `Slots`.

    Example
    -------
    >>> from speechbrain_ssl.lobes.csc import Slots
    >>> class Halves(nn.Module):
    ...     def forward(self, waves):
    ...         estimates = torch.stack([waves / 3, waves * 2 / 3], dim=1)
    ...         return Slots(torch.eye(2).expand(len(waves), 2, 2), estimates)
    >>> LoudestSlot(Halves())(torch.randn(3, 8))[:, 0].tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(
        self, waves: torch.Tensor, lengths: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Embeddings.

        Arguments
        ---------
        waves : torch.Tensor
            (B, T).
        lengths : torch.Tensor, optional
            Not used: padding is heard as silence.

        Returns
        -------
        torch.Tensor
            (B, 1, D) unit vectors.
        """
        slots = self.encoder(waves)
        loudest = slots.estimates.square().sum(-1).argmax(1)  # (B,)
        rows = torch.arange(len(waves), device=waves.device)
        return slots.embeddings[rows, loudest].unsqueeze(1)
