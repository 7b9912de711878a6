"""Waveforms of one or several crop lengths to embeddings, in one call."""

from typing import Optional

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization
from torch import nn


class ViewEncoder(nn.Module):
    """Log-mel features, sentence mean removed, and an embedding model.

    A step calls it once with all its views, whatever their lengths: a module
    wrapped for distributed training must not be called twice before backward.
    Features are computed in float32 without gradient.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        SpeechBrain's `ECAPA_TDNN` or another model of (B, T, F) features to
        (B, 1, D).
    n_mels : int
        F.
    sample_rate : int
        Hz.

    Example
    -------
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> ecapa = ECAPA_TDNN(40, channels=[8, 8, 8, 8, 24], lin_neurons=16)
    >>> encoder = ViewEncoder(ecapa, n_mels=40)
    >>> encoder(torch.randn(3, 16000)).shape
    torch.Size([3, 16])
    >>> encoder(torch.randn(3, 2, 16000), torch.randn(3, 4, 8000)).shape
    torch.Size([3, 6, 16])
    """

    def __init__(
        self,
        embedding_model: nn.Module,
        n_mels: int = 80,
        sample_rate: int = 16000,
        top_hz: Optional[int] = None,
    ):
        super().__init__()
        self.compute_features = Fbank(
            n_mels=n_mels, sample_rate=sample_rate, f_max=top_hz
        )
        self.mean_var_norm = InputNormalization(
            norm_type="sentence", std_norm=False
        )
        self.embedding_model = embedding_model

    def forward(self, *waves: torch.Tensor) -> torch.Tensor:
        """Embeddings of waveforms.

        Arguments
        ---------
        *waves : torch.Tensor
            One (B, T), or groups (B, V_i, T_i) of views of a length.

        Returns
        -------
        torch.Tensor
            (B, D), or (B, V, D) with the groups' views in their order.
        """
        if waves[0].dim() == 2:
            return self._embed(waves[0])
        groups = [
            self._embed(group.flatten(0, 1)).unflatten(0, group.shape[:2])
            for group in waves
        ]
        return torch.cat(groups, dim=1)

    def _embed(self, waves):
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            features = self.compute_features(waves.float())
            features = self.mean_var_norm(
                features, torch.ones(len(waves), device=waves.device)
            )
        return self.embedding_model(features).squeeze(1)
