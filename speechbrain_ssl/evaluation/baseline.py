"""Log-mel statistics: what averages alone tell about a speaker."""

import torch
from speechbrain.lobes.features import Fbank
from torch import nn


class LogMelStatistics(nn.Module):
    """Mean and standard deviation of 40 log-mel bands, without training.

    The floor of every comparison: a network that learned anything about
    speakers is better.

    Arguments
    ---------
    sample_rate : int
        Hz.

    Example
    -------
    >>> LogMelStatistics()(torch.randn(2, 16000)).shape
    torch.Size([2, 80])
    """

    def __init__(self, sample_rate: int = 16000):
        super().__init__()
        self.features = Fbank(
            n_mels=40,
            sample_rate=sample_rate,
            n_fft=sample_rate // 40,
            f_max=sample_rate / 2,
        )

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Statistics of each wave.

        Arguments
        ---------
        waves : torch.Tensor
            (B, T).

        Returns
        -------
        torch.Tensor
            (B, 80).
        """
        bands = self.features(waves)  # (B, L, 40)
        return torch.cat([bands.mean(1), bands.std(1)], dim=1)
