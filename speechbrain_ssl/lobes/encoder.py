"""Waveforms of one or several crop lengths to embeddings, in one call."""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Optional

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from speechbrain_ssl.checks import check_sizes


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
    top_hz : int, optional
        Upper edge of the features; by default half the sample rate.
    chunk_size : int, optional
        Utterances whose activations are in memory at once in training; those
        of the others are computed again in the backward pass. A loss that
        contrasts thousands of embeddings then needs the memory of a chunk,
        for a third more time. Batch norm sees one chunk at a time.

    Raises
    ------
    BadInputError
        If `chunk_size` is below 2.

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
        chunk_size: Optional[int] = None,
    ):
        super().__init__()
        fits = chunk_size is None or chunk_size >= 2
        check_sizes(chunk_size=(fits, chunk_size, "2 or more"))
        self.chunk_size = chunk_size
        self.compute_features = Fbank(
            n_mels=n_mels,
            sample_rate=sample_rate,
            f_max=top_hz,
            n_fft=fft_size(sample_rate),
        )
        self.mean_var_norm = InputNormalization(
            norm_type="sentence", std_norm=False
        )
        self.embedding_model = embedding_model
        # Of padded waveforms; SpeechBrain's ResNet passes over them.
        self.takes_lengths = isinstance(embedding_model, ECAPA_TDNN)

    def forward(
        self, *waves: torch.Tensor, lengths: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Embeddings of waveforms.

        Arguments
        ---------
        *waves : torch.Tensor
            One (B, T), or groups (B, V_i, T_i) of views of a length.
        lengths : torch.Tensor, optional
            (B,) samples of the waves in the one (B, T), where it is padded.

        Returns
        -------
        torch.Tensor
            (B, D), or (B, V, D) with the groups' views in their order.
        """
        if waves[0].dim() == 2:
            return self._embed(waves[0], lengths)
        if self.chunk_size is None or not torch.is_grad_enabled():
            return self._embed_views(*waves)
        count = -(-len(waves[0]) // self.chunk_size)
        chunks = zip(*(group.tensor_split(count) for group in waves))
        return torch.cat(
            [
                checkpoint(
                    self._embed_views,
                    *chunk,
                    use_reentrant=False,
                    context_fn=lambda: (nullcontext(), _still(self)),
                )
                for chunk in chunks
            ]
        )

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for part in (self.compute_features, self.mean_var_norm):
            move_features(part, fn)
        return self

    def _embed_views(self, *groups):
        views = [
            self._embed(group.flatten(0, 1)).unflatten(0, group.shape[:2])
            for group in groups
        ]
        return torch.cat(views, dim=1)

    def _embed(self, waves, lengths=None):
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            features, frames = normalised_features(
                waves.float(),
                self.compute_features,
                self.mean_var_norm,
                lengths,
            )
        if frames is None:
            return self.embedding_model(features).squeeze(1)
        return self.embedding_model(features, frames).squeeze(1)


def fft_size(sample_rate: int) -> int:
    """Of SpeechBrain's features, and no less than their window of 25 ms.

    Example
    -------
    >>> fft_size(8000), fft_size(16000), fft_size(24000)
    (400, 400, 600)
    """
    return max(400, sample_rate // 40)


def move_features(
    features: nn.Module, fn: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Move the plain tensors of SpeechBrain's features with their module.

    They are no buffers: left on the CPU they would be copied to the device in
    every step, and the step would wait for it.

    Arguments
    ---------
    features : torch.nn.Module
        Of `speechbrain.processing.features`, or what contains them.
    fn : callable
        What `torch.nn.Module._apply` is given; only its device counts.
    """
    for part in features.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                setattr(part, name, value.to(fn(value).device))
                if hasattr(part, "device_inp"):  # of what it makes
                    part.device_inp = getattr(part, name).device


def normalised_features(
    waves: torch.Tensor,
    compute_features: nn.Module,
    norm: nn.Module,
    lengths: Optional[torch.Tensor] = None,
) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
    """Features through SpeechBrain's normalisation, mirrored into padding.

    Padding that the norm has made strongly negative would reach valid frames
    by way of the convolutions. Those of SpeechBrain mirror the edges of what
    they are given, so mirrored frames leave the embedding closer to that of
    the wave alone than zeros do.

    Arguments
    ---------
    waves : torch.Tensor
        (B, T) waveforms.
    compute_features : torch.nn.Module
        `Fbank`.
    norm : torch.nn.Module
        `InputNormalization`.
    lengths : torch.Tensor, optional
        (B,) samples of each wave; by default nothing is padded.

    Returns
    -------
    features : torch.Tensor
        (B, frames, F).
    frames : torch.Tensor or None
        (B,) relative lengths of the features, where waves are padded.
    """
    features = compute_features(waves)
    if lengths is None:
        whole = torch.ones(len(waves), device=waves.device)
        return norm(features, whole), None
    last = lengths // compute_features.compute_STFT.hop_length
    # Half a frame off the edge: rounding then neither adds nor takes one.
    frames = (last + 0.5) / features.shape[1]
    features = norm(features, frames)
    last = last[:, None]
    place = torch.arange(features.shape[1], device=waves.device)
    place = torch.where(place > last, (2 * last - place).clamp(min=0), place)
    return features.gather(1, place[..., None].expand_as(features)), frames


@contextmanager
def _still(module):
    """Running statistics of batch norm stay as they are meanwhile."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:  # `checkpoint` leaves by an exception once it has what it needs
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
