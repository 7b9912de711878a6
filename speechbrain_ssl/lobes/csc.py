"""Separative encoders of CSC: mixture to waveforms and embeddings.

Source: Wang, Lam, Su, Yu, "Contrastive Separative Coding for Self-supervised
Representation Learning", ICASSP 2021, arXiv:2103.00816: a multi-task
separative encoder gives one embedding that separates and discriminates.
Layers and sizes are not given in what we could read; they follow GALR
(arXiv:2101.05014) by the same group.
"""

from typing import NamedTuple

import torch
from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    spectral_magnitude,
)
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes
from speechbrain_ssl.lobes.encoder import fft_size, move_features
from speechbrain_ssl.lobes.galr import GALRStack, overlap_add, segment
from speechbrain_ssl.lobes.spectra import mel_to_bins, waveforms


class Slots(NamedTuple):
    """What a separative encoder gives for a mixture, slot by slot.

    Arguments
    ---------
    embeddings : torch.Tensor
        (B, C, D) unit vectors.
    estimates : torch.Tensor
        (B, C, T) waveforms in the same slot order.
    """

    embeddings: torch.Tensor
    estimates: torch.Tensor


class SeparativeEncoder(nn.Module):
    """Waveform to separated sources and one speaker embedding each.

    A convolutional encoder, a shared trunk of GALR blocks, a separation
    branch that masks the encoded mixture, and a speaker branch that reads the
    gated features of each slot before the mask, so that one slot order serves
    both. Masks are made at full resolution, so any length is accepted.

    Source: arXiv:2103.00816 for the two tasks on one trunk; arXiv:2101.05014
    for blocks, mask and gate.

    Differs: depth of the branches, pooling and the embedding layer are ours.

    Arguments
    ---------
    sources : int
        C, talkers of a mixture.
    window : int
        Samples of the encoder's kernel; its stride is half. 16 at 8 kHz and
        32 at 16 kHz give a hop of 1 ms.
    channels : int
        D of encoder and blocks.
    embedding_dim : int
        Size of the speaker embedding.
    trunk_blocks, separation_blocks, speaker_blocks : int
        GALR blocks of each part.
    segment_frames : int
        K, encoder frames of a segment, even.
    hidden : int
        LSTM units per direction.
    global_frames : int
        Q, positions that stand for a segment in the attention.
    heads : int
        Attention heads; divides `channels`.
    dropout : float
        Of the attention.

    Raises
    ------
    BadInputError
        If a size is not usable.

    Example
    -------
    >>> encoder = SeparativeEncoder(
    ...     window=32,
    ...     channels=8,
    ...     embedding_dim=6,
    ...     trunk_blocks=1,
    ...     separation_blocks=1,
    ...     speaker_blocks=1,
    ...     segment_frames=20,
    ...     hidden=4,
    ...     global_frames=4,
    ...     heads=2,
    ... )
    >>> slots = encoder(torch.randn(2, 3200))
    >>> slots.embeddings.shape, slots.estimates.shape
    (torch.Size([2, 2, 6]), torch.Size([2, 2, 3200]))
    """

    def __init__(
        self,
        sources: int = 2,
        window: int = 32,
        channels: int = 64,
        embedding_dim: int = 192,
        trunk_blocks: int = 4,
        separation_blocks: int = 2,
        speaker_blocks: int = 2,
        segment_frames: int = 100,
        hidden: int = 128,
        global_frames: int = 32,
        heads: int = 8,
        dropout: float = 0.1,
    ):
        super().__init__()
        check_sizes(
            sources=(sources >= 1, sources, "1 or more"),
            window=(window % 2 == 0, window, "even"),
            segment_frames=(segment_frames % 2 == 0, segment_frames, "even"),
            channels=(
                channels % heads == 0 and channels % 2 == 0,
                channels,
                f"a multiple of heads ({heads})",
            ),
        )
        self.sources = sources
        self.window = window
        self.segment_frames = segment_frames
        hop = window // 2
        sizes = (segment_frames, hidden, global_frames, heads, dropout)
        self.encoder = nn.Conv1d(1, channels, window, hop, bias=False)
        self.bottleneck = nn.Conv1d(channels, channels, 1)
        self.trunk = GALRStack(trunk_blocks, channels, *sizes)
        self.separator = GALRStack(separation_blocks, channels, *sizes)
        self.activation = nn.PReLU()
        self.to_slots = nn.Conv1d(channels, sources * channels, 1)
        self.gate_tanh = nn.Conv1d(channels, channels, 1)
        self.gate_sigmoid = nn.Conv1d(channels, channels, 1)
        self.to_mask = nn.Conv1d(channels, channels, 1)
        self.decoder = nn.ConvTranspose1d(channels, 1, window, hop, bias=False)
        self.speaker = GALRStack(speaker_blocks, channels, *sizes)
        self.pooling = AttentiveStatisticsPooling(channels)
        self.to_embedding = nn.Linear(2 * channels, embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim)

    def forward(self, mixtures: torch.Tensor) -> Slots:
        """Separate and embed.

        Arguments
        ---------
        mixtures : torch.Tensor
            (B, T) waveforms of one length.

        Returns
        -------
        Slots
            Embeddings (B, C, D) and estimates (B, C, T).
        """
        batch, samples = mixtures.shape
        hop = self.window // 2
        tail = -samples % hop
        padded = F.pad(mixtures[:, None], (hop, hop + tail))
        encoded = self.encoder(padded).relu()  # (B, D, L)
        length = encoded.shape[-1]
        shared = self.trunk(
            segment(self.bottleneck(encoded), self.segment_frames)
        )
        slots = overlap_add(self.activation(self.separator(shared)), length)
        slots = self.to_slots(slots)
        slots = slots.reshape(batch * self.sources, -1, length)  # (B*C, D, L)
        gated = (
            self.gate_tanh(slots).tanh() * self.gate_sigmoid(slots).sigmoid()
        )
        masks = self.to_mask(gated).relu()
        masked = masks * encoded.repeat_interleave(self.sources, dim=0)
        estimates = self.decoder(masked)[:, 0, hop : hop + samples]
        estimates = estimates.reshape(batch, self.sources, samples)
        return Slots(self._embed(gated, batch), estimates)

    def _embed(self, gated, batch):
        length = gated.shape[-1]
        features = self.speaker(segment(gated, self.segment_frames))
        pooled = self.pooling(overlap_add(features, length))[:, :, 0]
        embeddings = F.normalize(self.norm(self.to_embedding(pooled)), dim=-1)
        return embeddings.reshape(batch, self.sources, -1)


class SeparativeECAPA(nn.Module):
    """Separative encoder on log-mel features with an ECAPA-TDNN per slot.

    GALR blocks over log-mel frames estimate one mask per slot (and one for
    what belongs to no talker). The masked mel bands of each slot go through
    one SpeechBrain ECAPA-TDNN; the same masks on the mixture's spectrogram
    give the waveforms that the separation term compares. With an open mask
    the ECAPA-TDNN sees the stock features, so its weights can start from, and
    be published as, a stock speaker model.

    Differs: not the paper's time-domain encoder; about ten times cheaper at
    16 kHz, for small machines and short training.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        SpeechBrain's ECAPA_TDNN with `n_mels` inputs: (B, L, F) to (B, 1, D).
    sources : int
        C, talkers of a mixture.
    sample_rate : int
        Hz.
    n_mels : int
        Mel bands F.
    channels, blocks, segment_frames, hidden, global_frames, heads, dropout
        Of the mask estimator; frames are 10 ms. See `SeparativeEncoder`.
    floor : float
        Smallest amplitude of a mask in the ECAPA-TDNN's input, 0.001 to 0.1;
        0.01 is -40 dB.

    Raises
    ------
    BadInputError
        If a size is not usable.

    Example
    -------
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> ecapa = ECAPA_TDNN(
    ...     40,
    ...     lin_neurons=6,
    ...     channels=[8] * 4 + [24],
    ...     attention_channels=8,
    ...     se_channels=8,
    ... )
    >>> encoder = SeparativeECAPA(
    ...     ecapa, n_mels=40, channels=8, blocks=1, hidden=4, heads=2
    ... )
    >>> slots = encoder(torch.randn(2, 8000))
    >>> slots.embeddings.shape, slots.estimates.shape
    (torch.Size([2, 2, 6]), torch.Size([2, 2, 8000]))
    """

    def __init__(
        self,
        embedding_model: nn.Module,
        sources: int = 2,
        sample_rate: int = 16000,
        n_mels: int = 80,
        channels: int = 64,
        blocks: int = 2,
        segment_frames: int = 20,
        hidden: int = 64,
        global_frames: int = 8,
        heads: int = 4,
        dropout: float = 0.1,
        floor: float = 0.01,
    ):
        super().__init__()
        check_sizes(
            sources=(sources >= 1, sources, "1 or more"),
            segment_frames=(segment_frames % 2 == 0, segment_frames, "even"),
            channels=(
                channels % heads == 0,
                channels,
                f"a multiple of heads ({heads})",
            ),
            floor=(0 < floor < 1, floor, "between 0 and 1"),
        )
        self.embedding_model = embedding_model
        self.sources = sources
        self.segment_frames = segment_frames
        self.floor = floor
        n_fft = fft_size(sample_rate)
        self.stft = STFT(sample_rate, n_fft=n_fft)
        self.filterbank = Filterbank(
            n_mels, n_fft=n_fft, sample_rate=sample_rate, f_max=sample_rate / 2
        )
        self.register_buffer(
            "mel_to_bins",
            mel_to_bins(n_mels, n_fft // 2 + 1, sample_rate),
            persistent=False,
        )
        self.feature_norm = nn.LayerNorm(n_mels)
        self.bottleneck = nn.Linear(n_mels, channels)
        self.separator = GALRStack(
            blocks,
            channels,
            segment_frames,
            hidden,
            global_frames,
            heads,
            dropout,
        )
        self.activation = nn.PReLU()
        self.to_masks = nn.Linear(channels, (sources + 1) * n_mels)

    def forward(self, mixtures: torch.Tensor) -> Slots:
        """Separate and embed.

        Arguments
        ---------
        mixtures : torch.Tensor
            (B, T) waveforms of one length.

        Returns
        -------
        Slots
            Embeddings (B, C, D) and estimates (B, C, T).
        """
        batch, samples = mixtures.shape
        with torch.autocast(device_type=mixtures.device.type, enabled=False):
            spectra = self.stft(mixtures.float())  # (B, L, bins, 2)
            features = self.filterbank(spectral_magnitude(spectra))
        masks = self._masks(features)  # (B, C, L, F)
        with torch.autocast(device_type=mixtures.device.type, enabled=False):
            gains = masks.float() @ self.mel_to_bins  # (B, C, L, bins)
            separated = gains[..., None] * spectra[:, None]
            estimates = waveforms(separated.flatten(0, 1), self.stft, samples)
            estimates = estimates.reshape(batch, self.sources, samples)
            levels = 20 * torch.log10(masks.float().clamp(min=self.floor))
            slots = (features[:, None] + levels).flatten(0, 1)
            slots = slots - slots.mean(1, keepdim=True)
        embeddings = self.embedding_model(slots)[:, 0]
        embeddings = F.normalize(embeddings, dim=-1)
        return Slots(embeddings.reshape(batch, self.sources, -1), estimates)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for part in (self.stft, self.filterbank):
            move_features(part, fn)
        return self

    def _masks(self, features):
        batch, frames, bands = features.shape
        hidden = self.bottleneck(self.feature_norm(features))
        hidden = segment(hidden.transpose(1, 2), self.segment_frames)
        hidden = overlap_add(self.activation(self.separator(hidden)), frames)
        logits = self.to_masks(hidden.transpose(1, 2))
        logits = logits.reshape(batch, frames, self.sources + 1, bands)
        return logits.softmax(2)[:, :, :-1].transpose(1, 2)
