"""Supervised contrastive terms.

Source: Li, Mak, "AAM-SupCon", APSIPA ASC 2022, arXiv:2210.16636; Khosla et
al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362,
equation 2.
"""

import math

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


class AAMLoss(nn.Module):
    """Additive angular margin softmax over speakers, all views alike.

    Cosines with unit class vectors; the angle of the right class grows by the
    margin before the softmax of the scaled cosines:

    L = mean_i - log softmax_j( s cos(theta_ij + m [j = y_i]) )_{y_i}.

    Where theta + m would pass 180 degrees, cos(theta) - m sin(m) goes on
    instead. `margin` may be changed between steps.

    Source: Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, equation 3;
    the term of arXiv:2210.16636. Sub-centres: Deng et al., ECCV 2020.

    Differs from SpeechBrain's `AdditiveAngularMargin`: the margin touches the
    right column only, so no matrix of ones and zeros is made, and the
    gradient is finite where a cosine is 1 or -1.

    Arguments
    ---------
    embedding_dim : int
        D.
    classes : int
        Training speakers.
    margin : float
        m, radians, 0 to 0.5.
    scale : float
        s, about 30.
    subcentres : int
        Vectors of a class, of which the nearest counts; 1 is plain AAM.

    Raises
    ------
    BadInputError
        If a value is out of range.

    Example
    -------
    >>> loss = AAMLoss(embedding_dim=8, classes=5)
    >>> loss(torch.randn(4, 2, 8), torch.tensor([0, 4, 1, 1])).shape
    torch.Size([])
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        margin: float = 0.2,
        scale: float = 32.0,
        subcentres: int = 1,
    ):
        super().__init__()
        check_sizes(
            classes=(classes >= 2, classes, "2 or more"),
            margin=(0 <= margin < math.pi / 2, margin, "0 to 1.57"),
            scale=(scale > 0, scale, "above 0"),
            subcentres=(subcentres >= 1, subcentres, "1 or more"),
        )
        self.classes, self.margin, self.scale = classes, margin, scale
        self.weight = nn.Parameter(
            torch.empty(classes, subcentres, embedding_dim)
        )
        nn.init.xavier_normal_(self.weight)

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Mean over views and the batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            (B, V, D), of any length.
        labels : torch.Tensor
            (B,) integers below `classes`.

        Returns
        -------
        torch.Tensor
            Scalar, nats.
        """
        views = embeddings.shape[1]
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = F.normalize(embeddings.float(), dim=-1).flatten(0, 1)
            centres = F.normalize(self.weight.float(), dim=-1)
            cosines = (rows @ centres.flatten(0, 1).T).unflatten(
                1, centres.shape[:2]
            )
            cosines = cosines.amax(-1)  # (B V, classes)
            labels = labels.repeat_interleave(views).unsqueeze(1)
            right = cosines.gather(1, labels)
            logits = cosines.scatter(1, labels, self._with_margin(right))
            return F.cross_entropy(self.scale * logits, labels.squeeze(1))

    def _with_margin(self, cosine):
        # 1e-7 keeps the root's gradient finite at a cosine of 1 or -1
        sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), turned, beyond)
