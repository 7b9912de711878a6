"""Between mel bands, spectra and waveforms, without waiting for a device."""

import torch
from speechbrain.processing.features import STFT
from torch.nn import functional as F


def waveforms(spectra: torch.Tensor, stft: STFT, samples: int) -> torch.Tensor:
    """Waveforms of spectra by weighted overlap-add.

    What torch.istft gives; that one compares the sum of its windows with zero
    and so makes the host wait for the device in every step.

    Arguments
    ---------
    spectra : torch.Tensor
        (B, L, n_fft / 2 + 1, 2), real and imaginary parts.
    stft : speechbrain.processing.features.STFT
        That made spectra of waves of this length, centred frames.
    samples : int
        T.

    Returns
    -------
    torch.Tensor
        (B, T).

    Example
    -------
    >>> stft = STFT(8000, n_fft=256)
    >>> waves = torch.randn(2, 1000)
    >>> again = waveforms(stft(waves), stft, 1000)
    >>> torch.allclose(again, waves, atol=1e-5)
    True
    """
    size, hop = stft.n_fft, stft.hop_length
    before = (size - stft.win_length) // 2
    after = size - stft.win_length - before
    window = F.pad(stft.window.to(spectra.device), (before, after))
    frames = torch.fft.irfft(torch.view_as_complex(spectra.contiguous()), size)
    windows = window.square().expand(1, frames.shape[1], size)
    waves, weights = (
        F.fold(
            parts.transpose(1, 2),
            output_size=(1, size + hop * (frames.shape[1] - 1)),
            kernel_size=(1, size),
            stride=(1, hop),
        )[:, 0, 0, size // 2 : size // 2 + samples]
        for parts in (frames * window, windows)
    )
    return F.pad(waves / weights, (0, samples - waves.shape[1]))


def mel_to_bins(n_mels: int, bins: int, sample_rate: int) -> torch.Tensor:
    """Weights that spread mel-band masks over linear frequency bins.

    Every bin takes the mean of the bands that cover it, weighted by their
    triangles; bins outside all triangles take the nearest band, so that a
    mask of ones stays a mask of ones.

    Arguments
    ---------
    n_mels : int
        F.
    bins : int
        Frequency bins of the spectrum.
    sample_rate : int
        Hz.

    Returns
    -------
    torch.Tensor
        (F, bins); columns sum to 1.

    Example
    -------
    >>> weights = mel_to_bins(10, 201, 16000)
    >>> torch.allclose(weights.sum(0), torch.ones(201))
    True
    """
    mel = torch.linspace(
        0,
        2595 * torch.log10(torch.tensor(1 + sample_rate / 1400)).item(),
        n_mels + 2,
    )
    edges = 700 * (10 ** (mel / 2595) - 1)  # Hz, F + 2 points
    centres, widths = edges[1:-1], edges[1:-1] - edges[:-2]
    frequencies = torch.linspace(0, sample_rate / 2, bins)
    distance = (frequencies - centres[:, None]).abs() / widths[:, None]
    triangles = (1 - distance).clamp(min=0)  # (F, bins)
    nearest = F.one_hot(distance.argmin(0), n_mels).T.float()
    total = triangles.sum(0)
    return torch.where(total > 0, triangles / total.clamp(min=1e-6), nearest)
