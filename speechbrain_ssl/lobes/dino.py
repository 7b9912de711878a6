"""Projection head of DINO with normalised prototypes."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_ssl.checks import check_sizes


class DINOHead(nn.Module):
    """Embedding to cosines with K prototypes.

    Linear layers with GELU, a bottleneck that is brought to length one, and
    K prototypes of length one (a weight-normalised layer with fixed gain), so
    that logits lie between -1 and 1. Only training needs the head.

    Source: Cho et al. 2022, arXiv:2208.05413, settings of the authors' code;
    the head is that of Caron et al. 2021, arXiv:2104.14294.

    Arguments
    ---------
    input_dim : int
        D of the embedding.
    prototypes : int
        K; the cost of a step grows with it.
    hidden_dim : int
        Width of the hidden layers.
    bottleneck_dim : int
        Width before the prototypes.
    layers : int
        Linear layers up to the bottleneck, 1 or more.
    batch_norm : bool
        Batch normalisation after each hidden layer.

    Raises
    ------
    BadInputError
        If a size cannot be used.

    Example
    -------
    >>> head = DINOHead(input_dim=16, prototypes=32, hidden_dim=24)
    >>> cosines = head(torch.randn(6, 4, 16))
    >>> cosines.shape, bool(cosines.abs().max() <= 1 + 1e-6)
    (torch.Size([6, 4, 32]), True)
    """

    def __init__(
        self,
        input_dim: int,
        prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        layers: int = 3,
        batch_norm: bool = False,
    ):
        super().__init__()
        check_sizes(
            prototypes=(prototypes >= 2, prototypes, "2 or more"),
            layers=(layers >= 1, layers, "1 or more"),
        )
        sizes = [input_dim, *[hidden_dim] * (layers - 1), bottleneck_dim]
        self.layers = nn.Sequential()
        for place, (before, after) in enumerate(zip(sizes, sizes[1:])):
            linear = nn.Linear(before, after)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            self.layers.append(linear)
            if place < layers - 1:
                if batch_norm:
                    self.layers.append(nn.BatchNorm1d(after))
                self.layers.append(nn.GELU())
        self.prototypes = weight_norm(
            nn.Linear(bottleneck_dim, prototypes, bias=False)
        )
        gain = self.prototypes.parametrizations.weight.original0
        nn.init.ones_(gain).requires_grad_(False)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Cosines with the prototypes, in float32 also under autocast.

        Arguments
        ---------
        embeddings : torch.Tensor
            (..., D).

        Returns
        -------
        torch.Tensor
            (..., K).
        """
        shape = embeddings.shape[:-1]
        points = self.layers(embeddings.reshape(-1, embeddings.shape[-1]))
        # A cosine of bfloat16 has two digits; the temperatures multiply it.
        with torch.autocast(points.device.type, enabled=False):
            points = F.normalize(points.float(), dim=-1)
            return self.prototypes(points).reshape(*shape, -1)
