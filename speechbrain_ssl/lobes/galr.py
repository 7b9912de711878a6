"""Globally attentive, locally recurrent (GALR) blocks over segments.

Source: Lam, Wang, Su, Yu, "Effective low-cost time-domain audio separation
using globally attentive locally recurrent networks", 2021, arXiv:2101.05014.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def segment(sequence: torch.Tensor, size: int) -> torch.Tensor:
    """Cut a sequence into segments that overlap by half.

    Arguments
    ---------
    sequence : torch.Tensor
        (B, D, L).
    size : int
        Segment length K, even.

    Returns
    -------
    torch.Tensor
        (B, D, K, S); zeros are added at both ends so that every frame lies in
        two segments.

    Example
    -------
    >>> segment(torch.randn(2, 4, 25), 10).shape
    torch.Size([2, 4, 10, 6])
    """
    hop = size // 2
    tail = -sequence.shape[-1] % hop
    padded = F.pad(sequence, (hop, hop + tail))
    return padded.unfold(-1, size, hop).transpose(2, 3)


def overlap_add(segments: torch.Tensor, length: int) -> torch.Tensor:
    """Mean of the two segments over every frame, the inverse of `segment`.

    Arguments
    ---------
    segments : torch.Tensor
        (B, D, K, S).
    length : int
        L of the sequence.

    Returns
    -------
    torch.Tensor
        (B, D, L).

    Example
    -------
    >>> sequence = torch.randn(2, 4, 25)
    >>> back = overlap_add(segment(sequence, 10), 25)
    >>> torch.allclose(sequence, back)
    True
    """
    batch, channels, size, count = segments.shape
    hop = size // 2
    first, second = segments.split(hop, dim=2)  # (B, D, hop, S) each
    # Frame block j holds the second half of segment j - 1, the first of j.
    blocks = (second[..., :-1] + first[..., 1:]) / 2
    sequence = blocks.transpose(2, 3).reshape(batch, channels, -1)
    return sequence[..., :length]


def sinusoids(rows: torch.Tensor) -> torch.Tensor:
    """Sine and cosine position codes for a sequence of any length.

    SpeechBrain's `PositionalEncoding` keeps a table of fixed length in every
    checkpoint; recordings here have no longest length.

    Arguments
    ---------
    rows : torch.Tensor
        (B, L, D), D even; gives length, width, device and type.

    Returns
    -------
    torch.Tensor
        (L, D).

    Example
    -------
    >>> sinusoids(torch.zeros(1, 3, 4))[0]
    tensor([0., 0., 1., 1.])
    """
    _, length, channels = rows.shape
    half = torch.arange(channels // 2, device=rows.device)
    rates = torch.exp(half * (-2 * math.log(10000.0) / channels))
    angles = torch.arange(length, device=rows.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(rows.dtype)


class GALRBlock(nn.Module):
    """Recurrence within each segment, then attention across segments.

    Differs: the attention adds its input as residual, as the paper's figure
    suggests; the authors' released file adds a dropped-out copy of its own
    output.

    Arguments
    ---------
    channels : int
        D, divisible by `heads`.
    size : int
        Segment length K.
    hidden : int
        LSTM units per direction.
    global_size : int
        Q, positions that stand for a segment in the attention.
    heads : int
        Attention heads.
    dropout : float
        Of the attention, 0 to 0.5.

    Example
    -------
    >>> block = GALRBlock(channels=8, size=10, hidden=6, global_size=4, heads=2)
    >>> block(torch.randn(2, 8, 10, 5)).shape
    torch.Size([2, 8, 10, 5])
    """

    def __init__(
        self,
        channels: int,
        size: int,
        hidden: int,
        global_size: int,
        heads: int,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.local = nn.LSTM(
            channels, hidden, batch_first=True, bidirectional=True
        )
        self.initial = nn.Parameter(torch.zeros(2, 2, 1, hidden))
        self.local_out = nn.Linear(2 * hidden, channels)
        self.local_norm = nn.GroupNorm(1, channels)
        self.to_global = nn.Linear(size, global_size)
        self.norm_in = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(
            channels, heads, dropout=dropout, batch_first=True
        )
        self.dropout = nn.Dropout(dropout)
        self.norm_out = nn.LayerNorm(channels)
        self.from_global = nn.Linear(global_size, size)
        self.global_norm = nn.GroupNorm(1, channels)

    def forward(self, segments: torch.Tensor) -> torch.Tensor:
        """Process segments.

        Arguments
        ---------
        segments : torch.Tensor
            (B, D, K, S).

        Returns
        -------
        torch.Tensor
            (B, D, K, S).
        """
        segments = segments + self.local_norm(self._recur(segments))
        return segments + self.global_norm(self._attend(segments))

    def _recur(self, segments):
        batch, channels, size, count = segments.shape
        rows = segments.permute(0, 3, 2, 1).reshape(-1, size, channels)
        state = self.initial.expand(-1, -1, len(rows), -1).contiguous()
        rows = self.local_out(self.local(rows, (state[0], state[1]))[0])
        rows = rows.reshape(batch, count, size, channels)
        return rows.permute(0, 3, 2, 1)

    def _attend(self, segments):
        batch, channels, _, count = segments.shape
        rows = self.to_global(segments.transpose(2, 3))  # (B, D, S, Q)
        rows = rows.permute(0, 3, 2, 1).reshape(-1, count, channels)
        rows = self.norm_in(rows)
        rows = rows + sinusoids(rows)
        mixed = self._attention(rows)
        rows = self.norm_out(rows + self.dropout(mixed))
        rows = rows.reshape(batch, -1, count, channels).permute(0, 3, 2, 1)
        return self.from_global(rows).transpose(2, 3)

    def _attention(self, rows):
        layer = self.attention
        if self.training:
            return layer(rows, rows, rows, need_weights=False)[0]
        # The same; its path without gradients is quadratic in memory on a CPU.
        packed = F.linear(rows, layer.in_proj_weight, layer.in_proj_bias)
        packed = packed.unflatten(-1, (3, layer.num_heads, -1))
        queries, keys, values = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return layer.out_proj(mixed.transpose(1, 2).flatten(2))


class GALRStack(nn.Sequential):
    """A row of equal GALR blocks.

    Arguments
    ---------
    blocks : int
        Number of blocks, 1 or more.
    channels, size, hidden, global_size, heads, dropout
        See `GALRBlock`.

    Example
    -------
    >>> stack = GALRStack(
    ...     blocks=2, channels=8, size=10, hidden=6, global_size=4, heads=2
    ... )
    >>> stack(torch.randn(2, 8, 10, 5)).shape
    torch.Size([2, 8, 10, 5])
    """

    def __init__(
        self,
        blocks: int,
        channels: int,
        size: int,
        hidden: int,
        global_size: int,
        heads: int,
        dropout: float = 0.1,
    ):
        super().__init__(
            *[
                GALRBlock(channels, size, hidden, global_size, heads, dropout)
                for _ in range(blocks)
            ]
        )
