"""Supervised contrastive terms.

Source: Li, Mak, "AAM-SupCon", APSIPA ASC 2022, arXiv:2210.16636; Khosla et
al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362,
equation 2.
"""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes


class SupConLoss(nn.Module):
    """Supervised contrastive loss over several views of labelled utterances.

    Every view is an anchor; the other views of its label are its positives,
    all other rows the contrast:

    L_i = log sum_{a != i} exp(z_i . z_a / t) - mean_p z_i . z_p / t,

    averaged over anchors that have a positive. With a label of its own for
    each utterance and two views this is NT-Xent (Chen et al., ICML 2020,
    arXiv:2002.05709). The positives' mean is a product with the sum of the
    label's rows, so the one square matrix is that of similarities.

    Source: arXiv:2004.11362, equation 2; arXiv:2210.16636.

    Arguments
    ---------
    temperature : float
        t, 0.05 to 0.5; 0.07 in the paper.

    Raises
    ------
    BadInputError
        If the temperature is not above 0 or shapes do not fit.

    Example
    -------
    >>> embeddings = torch.eye(3).unsqueeze(1).expand(3, 5, 3)
    >>> loss = SupConLoss(temperature=0.01)(embeddings, torch.arange(3))
    >>> round(loss.item(), 3)  # perfect clusters: ln of 4 positives
    1.386
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        check_sizes(temperature=(temperature > 0, temperature, "above 0"))
        self.temperature = temperature

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Mean over anchors that have a positive; 0 without any.

        Arguments
        ---------
        embeddings : torch.Tensor
            (B, V, D), of any length.
        labels : torch.Tensor
            (B,) integers.

        Returns
        -------
        torch.Tensor
            Scalar, nats.
        """
        batch, views, _ = embeddings.shape
        check_sizes(
            labels=(
                labels.shape == (batch,),
                tuple(labels.shape),
                f"({batch},)",
            )
        )
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = F.normalize(embeddings.float(), dim=-1)  # (B, V, D)
            same = (labels.unsqueeze(0) == labels.unsqueeze(1)).float()
            sums = same @ rows.sum(1)  # (B, D)
            positives = (views * same.sum(1) - 1).unsqueeze(1)  # (B, 1)
            dots = (rows * sums.unsqueeze(1)).sum(-1) - rows.square().sum(-1)
            flat = rows.flatten(0, 1)
            similarities = flat @ flat.T / self.temperature
            similarities.fill_diagonal_(-torch.inf)
            contrast = similarities.logsumexp(-1).unflatten(0, (batch, views))
            pulled = dots / (self.temperature * positives.clamp(min=1))
            has = (positives > 0).float()
            # nothing to tell apart: logsumexp of one masked row is -inf
            terms = (contrast - pulled).masked_fill(positives == 0, 0.0)
            return terms.sum() / (has.sum() * views).clamp(min=1)
