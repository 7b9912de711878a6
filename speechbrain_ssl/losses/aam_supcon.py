"""Supervised contrastive terms.

Source: Li, Mak, "AAM-SupCon", APSIPA ASC 2022, arXiv:2210.16636; Khosla et
al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362,
equation 2.
"""

import math
from typing import Optional

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.distributed import (
    get_rank,
    get_world_size,
    is_initialized,
)
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes

ROWS = 1024  # anchors whose similarities are in memory at once


class _Contrast(torch.autograd.Function):
    """Weighted sum over anchors of the log of the sum over their contrast.

    Anchors are rows `first` to `first + len(weights)` of all rows z; the term
    of anchor i is log sum_{j != i} exp((z_i . z_j - m [y_i = y_j]) / t). A
    few anchors at a time meet all rows, and the gradient is made with the
    value, so no square matrix is kept.
    """

    @staticmethod
    def forward(ctx, rows, labels, weights, first, temperature, margin):
        total, gradient = rows.new_zeros(()), torch.zeros_like(rows)
        for start in range(0, len(weights), ROWS):
            weight = weights[start : start + ROWS, None]
            begin = first + start
            part = slice(begin, begin + len(weight))
            logits = rows[part] @ rows.T  # (anchors, rows)
            if margin:
                same = labels[part, None] == labels
                logits.sub_(same.float(), alpha=margin)
            logits.div_(temperature)
            logits.diagonal(begin).fill_(torch.finfo(logits.dtype).min)
            highest = logits.amax(1, keepdim=True)
            sums = logits.sub_(highest).exp_().sum(1, keepdim=True)
            total += (weight * (highest + sums.log())).sum()
            scale = weight / (temperature * sums)
            gradient[part] += scale * (logits @ rows)
            gradient.addmm_(logits.T, scale * rows[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, outer):
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None, None, None, None


class SupConLoss(nn.Module):
    """Supervised contrastive loss over several views of labelled utterances.

    Every view is an anchor; the other views of its label are its positives P,
    all other rows the contrast:

    L_i = log sum_{a != i} exp(z_i . z_a / t) - mean_p z_i . z_p / t,

    averaged over anchors that have a positive. With a label of its own for
    each utterance and two views this is NT-Xent (Chen et al., ICML 2020,
    arXiv:2002.05709). Under distributed training each process has its own
    anchors and all processes' rows as contrast, and gradients reach the
    process an embedding came from: two processes equal one with both batches.

    After a call `positives` holds |P|, `negatives` the size of the rest of the
    contrast and `floor` ln |P|, below which the loss cannot fall: means over
    anchors that have a positive.

    Source: arXiv:2004.11362, equation 2; arXiv:2210.16636.

    Differs: the margin is our form of the idea of Li, Mak, arXiv:2210.16622,
    whose text we had no access to.

    Arguments
    ---------
    temperature : float
        t, 0.05 to 0.5; 0.07 in the paper.
    margin : float
        Taken off the cosine of every positive, 0 to 1; 0 in the paper.
    projection_dim : int, optional
        Size of what is contrasted, made of the embedding by a layer of
        `embedding_dim`, a ReLU and a linear layer, which only training needs;
        by default the embedding itself, as in the authors' code. The paper's
        figure has such a network, arXiv:2004.11362 one of 128.
    embedding_dim : int, optional
        D; only for the projection.

    Raises
    ------
    BadInputError
        If a value is out of range or shapes do not fit.

    Example
    -------
    >>> embeddings = torch.eye(3).unsqueeze(1).expand(3, 5, 3)
    >>> loss = SupConLoss(temperature=0.01)(embeddings, torch.arange(3))
    >>> round(loss.item(), 3)  # perfect clusters: ln of 4 positives
    1.386
    """

    def __init__(
        self,
        temperature: float = 0.07,
        margin: float = 0.0,
        projection_dim: Optional[int] = None,
        embedding_dim: Optional[int] = None,
    ):
        super().__init__()
        size = projection_dim
        check_sizes(
            temperature=(temperature > 0, temperature, "above 0"),
            margin=(0 <= margin <= 1, margin, "0 to 1"),
            projection_dim=(size is None or size >= 1, size, "1 or more"),
            embedding_dim=(
                size is None or embedding_dim is not None,
                embedding_dim,
                "the embedding's size, for a projection",
            ),
        )
        self.temperature, self.margin = temperature, margin
        self.projection: nn.Module = nn.Identity()
        if size is not None:
            self.projection = nn.Sequential(
                nn.Linear(embedding_dim, embedding_dim),
                nn.ReLU(),
                nn.Linear(embedding_dim, size),
            )

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Mean over anchors that have a positive; 0 without any.

        Arguments
        ---------
        embeddings : torch.Tensor
            (B, V, D), of any length.
        labels : torch.Tensor
            (B,) integers, the same B on every process.

        Returns
        -------
        torch.Tensor
            Scalar, nats; on several processes their mean is the loss of all.
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
            own = self.projection(embeddings.float())
            own = F.normalize(own, dim=-1)  # (B, V, D)
            rows, everyone, rank = _gather(own, labels)
            same = (everyone.unsqueeze(0) == everyone.unsqueeze(1)).float()
            positives = views * same.sum(1) - 1  # (W B,)
            anchors = ((positives > 0).sum() * views).clamp(min=1)
            mine = slice(rank * batch, (rank + 1) * batch)
            positives, same = positives[mine], same[mine]
            # the mean over processes shall be the mean over all anchors
            share = (positives > 0) * (len(everyone) / batch / anchors)
            self.positives = views * (share * positives).sum()
            self.negatives = len(everyone) * views - 1 - self.positives
            self.floor = views * (share * positives.clamp(min=1).log()).sum()
            dots = own.sum(1) * (same @ rows.sum(1))  # of a label's rows
            dots = dots.sum(1) - own.square().sum((1, 2))
            near = dots / positives.clamp(min=1) - views * self.margin
            contrast = _Contrast.apply(
                rows.flatten(0, 1),
                everyone.repeat_interleave(views),
                share.repeat_interleave(views),
                rank * batch * views,
                self.temperature,
                self.margin,
            )
            return contrast - (share * near).sum() / self.temperature


def _gather(own, labels):
    """Embeddings with gradient, and labels, of all processes; the rank."""
    if not (is_initialized() and get_world_size() > 1):
        return own, labels, 0
    return torch.cat(all_gather(own)), torch.cat(all_gather(labels)), get_rank()


class AAMLoss(nn.Module):
    """Additive angular margin softmax over speakers.

    Cosines with unit class vectors; the angle of the right class grows by the
    margin before the softmax of the scaled cosines:

    L = mean_i - log softmax_j( s cos(theta_ij + m [j = y_i]) )_{y_i}.

    Where theta + m would pass 180 degrees, cos(theta) - m sin(m) goes on
    instead. `margin` may be changed between steps.

    Source: Deng et al., "ArcFace", CVPR 2019, arXiv:1801.07698, equation 3;
    the term of arXiv:2210.16636. Sub-centres: Deng et al., ECCV 2020.
    Inter-top-k: Zhao et al., ICASSP 2022, arXiv:2110.05042.

    Differs from SpeechBrain's `AdditiveAngularMargin`: the margin touches the
    right column only, so no matrix of ones and zeros is made, and the
    gradient is finite where a cosine is 1 or -1.

    Arguments
    ---------
    embedding_dim : int
        D.
    classes : int, optional
        Training speakers; without it `set_classes` has to be called first.
    margin : float
        m, radians, 0 to 0.5.
    scale : float
        s, about 30.
    subcentres : int
        Vectors of a class, of which the nearest counts; 1 is plain AAM.
    inter_top_k : int
        Wrong classes, the nearest ones, whose angle shrinks by
        `inter_margin`; 0 is plain AAM, 5 is common.
    inter_margin : float
        Radians, 0 to 0.5.
    view : int, optional
        The one view that is classified; by default all are, alike. The
        authors' code of arXiv:2210.16636 takes the reverberated one.

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
        classes: Optional[int] = None,
        margin: float = 0.2,
        scale: float = 32.0,
        subcentres: int = 1,
        inter_top_k: int = 0,
        inter_margin: float = 0.06,
        view: Optional[int] = None,
    ):
        super().__init__()
        check_sizes(
            margin=(0 <= margin < math.pi / 2, margin, "0 to 1.57"),
            scale=(scale > 0, scale, "above 0"),
            subcentres=(subcentres >= 1, subcentres, "1 or more"),
            inter_top_k=(inter_top_k >= 0, inter_top_k, "0 or more"),
            inter_margin=(0 <= inter_margin <= 0.5, inter_margin, "0 to 0.5"),
        )
        self.margin, self.scale = margin, scale
        self.inter_top_k, self.inter_margin = inter_top_k, inter_margin
        self.view = view
        self.shape = subcentres, embedding_dim
        self.classes = self.weight = None
        if classes is not None:
            self.set_classes(classes)

    def set_classes(self, classes: int) -> None:
        """Make the class vectors, anew.

        Arguments
        ---------
        classes : int
            Training speakers, more than `inter_top_k`.
        """
        least = max(2, self.inter_top_k + 1)
        check_sizes(classes=(classes >= least, classes, f"{least} or more"))
        self.classes = classes
        self.weight = nn.Parameter(torch.empty(classes, *self.shape))
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
        if self.view is not None:
            embeddings = embeddings[:, [self.view]]
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
            beyond = right - self.margin * math.sin(self.margin)
            turned = torch.where(
                right > -math.cos(self.margin),
                _turn(right, self.margin),
                beyond,
            )
            logits = cosines.scatter(1, labels, turned)
            if self.inter_top_k:
                wrong = cosines.detach().scatter(1, labels, -torch.inf)
                near = wrong.topk(self.inter_top_k, dim=1).indices
                nearer = _turn(cosines.gather(1, near), -self.inter_margin)
                logits = logits.scatter(1, near, nearer)
            return F.cross_entropy(self.scale * logits, labels.squeeze(1))


def _turn(cosine, angle):
    """Cosine of the angle made larger by some radians."""
    # 1e-7 keeps the root's gradient finite at a cosine of 1 or -1
    sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
    return cosine * math.cos(angle) - sine * math.sin(angle)
