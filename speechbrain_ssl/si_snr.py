"""Scale-invariant signal-to-noise ratio of all estimate-source pairs."""

import torch

EPSILON = 1e-8  # keeps silent signals finite


def si_snr_matrix(
    estimates: torch.Tensor, sources: torch.Tensor
) -> torch.Tensor:
    """SI-SNR of every estimate against every source, from their inner products.

    With p the projection of estimate a on source b, ||a - p||^2 equals
    ||a||^2 - <a, b>^2 / ||b||^2, so C x C inner products replace C x C
    difference signals. In float32 the difference of energies is exact to
    about 60 dB; better estimates read as about 60 dB, silent ones as -80 dB.

    Source: Le Roux et al., "SDR - half-baked or well done?", 2019,
    arXiv:1811.02508, for the measure; the Gram form is algebra.

    Arguments
    ---------
    estimates : torch.Tensor
        (B, C, T) waveforms, any scale.
    sources : torch.Tensor
        (B, K, T) reference waveforms.

    Returns
    -------
    torch.Tensor
        (B, C, K) decibels in float32, also under autocast.

    Example
    -------
    >>> sources = torch.randn(1, 2, 800)
    >>> matrix = si_snr_matrix(3 * sources.flip(1), sources)
    >>> bool(matrix[0, 0, 1] > 50), bool(matrix[0, 0, 0] < 0)
    (True, True)
    """
    with torch.autocast(device_type=estimates.device.type, enabled=False):
        estimates = estimates.float()
        sources = sources.float()
        estimates = estimates - estimates.mean(-1, keepdim=True)
        sources = sources - sources.mean(-1, keepdim=True)
        # no matrix product: SpeechBrain lets GPUs round those to TF32
        products = estimates[:, :, None] * sources[:, None]  # (B, C, K, T)
        products = products.sum(-1)
        energy = estimates.square().sum(-1)[:, :, None]
        reference = sources.square().sum(-1)[:, None, :] + EPSILON
        projected = products.square() / reference
        # Rounding can push the difference below zero for perfect estimates.
        residual = (energy - projected).clamp(min=EPSILON)
        ratio = (projected + EPSILON) / residual
        return 10 * torch.log10(torch.where(energy > EPSILON, ratio, EPSILON))
