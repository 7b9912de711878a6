"""The cross-view loss of DINO, in one pass over the student's logits.

Source: Cho, Pappagari, Zelasko, Moro-Velazquez, Villalba, Dehak,
"Non-Contrastive Self-supervised Learning for Utterance-Level Information
Extraction from Speech", Interspeech 2022, arXiv:2208.05413, after Caron et
al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
arXiv:2104.14294, equations 1 to 4.
"""

import torch
from torch import nn

from speechbrain_ssl.checks import check_sizes

CPU_BLOCK = 2**20  # logits of a view that the loss takes at a time


class DINOLoss(nn.Module):
    """Cross-entropy of the student's views against the teacher's long ones.

    The teacher's logits are centred, sharpened and turned into probabilities
    q_u; every student view v but u itself has to predict them:

    L = 1 / (U (V - 1)) sum_u sum_{v != u} mean_B [ - q_u . log p_v ].

    As every q_u sums to one, a term is logsumexp(s_v) - q_u . s_v: one softmax
    and one product a view, and no log-softmax for each pair. All of it is
    computed in float32, whatever the precision around it. After the
    loss, in training mode, the centre follows the mean teacher logit of all
    processes (equal batches assumed).

    With `sinkhorn_iterations` the centre gives way to the Sinkhorn-Knopp
    iteration of SwAV and DINOv2: rows and columns of exp(t / temperature) are
    normalised in turn, so that all prototypes receive the same mass in each
    step. It keeps a fast teacher from falling into two or three clusters,
    which the centre does not.

    With `watched` set, each call keeps what a collapse is seen by: `entropy`
    (mean of the teacher's entropies, nats) and `winners` ((U, B), its most
    probable prototypes). Both are None else.

    Source: arXiv:2208.05413, section 2; arXiv:2104.14294, equations 1 to 4.

    Differs: Sinkhorn-Knopp (0 iterations, none, as in the paper by default)
    is that of Caron et al., NeurIPS 2020, arXiv:2006.09882, as in Oquab et
    al. 2023, arXiv:2304.07193, but that samples are normalised once more,
    before the first round.

    Arguments
    ---------
    prototypes : int
        K.
    student_temperature : float
        Divides the student's logits; 0.1.
    centre_momentum : float
        Share of the old centre that is kept at each step, 0 to 1.
    sinkhorn_iterations : int
        0: the centre; 3: Sinkhorn-Knopp.
    watched : bool
        Keep `entropy` and `winners` of each call.

    Raises
    ------
    BadInputError
        If a value is out of range or shapes do not fit.

    Example
    -------
    >>> loss = DINOLoss(prototypes=8)
    >>> student, teacher = torch.randn(6, 4, 8), torch.randn(2, 4, 8)
    >>> loss(student, teacher, teacher_temperature=0.04).shape
    torch.Size([])
    """

    def __init__(
        self,
        prototypes: int,
        student_temperature: float = 0.1,
        centre_momentum: float = 0.9,
        sinkhorn_iterations: int = 0,
        watched: bool = False,
    ):
        super().__init__()
        check_sizes(
            prototypes=(prototypes >= 2, prototypes, "2 or more"),
            student_temperature=(
                0 < student_temperature <= 1,
                student_temperature,
                "above 0 and at most 1",
            ),
            centre_momentum=(
                0 <= centre_momentum <= 1,
                centre_momentum,
                "0 to 1",
            ),
            sinkhorn_iterations=(
                sinkhorn_iterations >= 0,
                sinkhorn_iterations,
                "0 or more",
            ),
        )
        self.student_temperature = student_temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(prototypes))
        self.watched = watched
        self.entropy = self.winners = None

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        teacher_temperature: float,
    ) -> torch.Tensor:
        """Mean cross-entropy over pairs of views and the batch.

        Arguments
        ---------
        student : torch.Tensor
            (V, B, K) logits; the first U views are the teacher's.
        teacher : torch.Tensor
            (U, B, K) logits; no gradient reaches them.
        teacher_temperature : float
            Below the student's, 0.04 to 0.07.

        Returns
        -------
        torch.Tensor
            Scalar, nats; ln K when the teacher says nothing.
        """
        views, batch, prototypes = student.shape
        longs = len(teacher)
        check_sizes(
            teacher=(
                teacher.shape[1:] == student.shape[1:] and longs <= views,
                tuple(teacher.shape),
                f"(at most {views}, {batch}, {prototypes}) as the student's",
            ),
            views=(views >= 2, views, "2 or more"),
            prototypes=(
                prototypes == len(self.centre),
                prototypes,
                f"{len(self.centre)} as the centre",
            ),
            teacher_temperature=(
                0 < teacher_temperature <= 1,
                teacher_temperature,
                "above 0 and at most 1",
            ),
        )
        with torch.autocast(student.device.type, enabled=False):
            targets = self.targets(teacher.detach(), teacher_temperature)
            loss = _CrossView.apply(student, targets, self.student_temperature)
            if self.training:
                self._follow(teacher.detach())
        return loss

    @torch.no_grad()
    def targets(
        self, teacher: torch.Tensor, teacher_temperature: float
    ) -> torch.Tensor:
        """Centred and sharpened probabilities, (U, B, K) float32."""
        if self.sinkhorn_iterations:
            logits = teacher.float() / teacher_temperature
            for _ in range(self.sinkhorn_iterations):
                logits -= logits.logsumexp(-1, keepdim=True)
                logits -= _over_processes(logits.logsumexp((0, 1)))
        else:
            share = 1 / teacher_temperature
            logits = torch.add(
                -share * self.centre, teacher.float(), alpha=share
            )
        if not self.watched:
            return torch.softmax(logits, -1, out=logits)
        probabilities = logits.softmax(-1)
        self.winners = _argmax(logits)
        best = self.winners.unsqueeze(-1)
        sums = logits.gather(-1, best) - probabilities.gather(-1, best).log()
        expected = torch.dot(probabilities.flatten(), logits.flatten())
        self.entropy = (sums.sum() - expected) / sums.numel()
        return probabilities

    @torch.no_grad()
    def _follow(self, teacher):
        mean = teacher.float().flatten(0, 1).mean(0)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        mean = torch.where(torch.isfinite(mean).all(), mean, self.centre)
        self.centre.lerp_(mean, 1 - self.centre_momentum)


def _argmax(values):
    """As `argmax` over the last axis, which on a CPU is slow for long rows."""
    if values.shape[-1] % 256:
        return values.argmax(-1)
    blocks = values.unflatten(-1, (-1, 256))
    block = blocks.amax(-1).argmax(-1, keepdim=True)
    best = blocks.take_along_dim(block.unsqueeze(-1), -2).squeeze(-2)
    return (256 * block).squeeze(-1) + best.argmax(-1)


def _over_processes(sums):
    """Log-sum-exps of each process to those of all."""
    if not torch.distributed.is_initialized():
        return sums
    highest = sums.clone()
    torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    total = (sums - highest).exp()
    torch.distributed.all_reduce(total)
    return highest + total.log()


class VarianceLoss(nn.Module):
    """Hinge on the standard deviation of every embedding dimension.

    Mean over views and dimensions of max(0, target - std over the batch).

    Source: the diversity regulariser of RDINO (Chen, Zheng, Wang, Cheng,
    Chen, "Pushing the Limits of Self-Supervised Speaker Verification using
    Regularized Distillation Framework", ICASSP 2023, arXiv:2211.04168), after
    VICReg (Bardes, Ponce, LeCun, ICLR 2022, arXiv:2105.04906).

    Differs: it regularises the embedding, not a projection of it.

    Arguments
    ---------
    target : float
        Wanted standard deviation.

    Example
    -------
    >>> round(VarianceLoss()(torch.zeros(2, 4, 3)).item(), 4)
    0.99
    """

    def __init__(self, target: float = 1.0):
        super().__init__()
        self.target = target

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scalar; embeddings are (V, B, D)."""
        std = (embeddings.float().var(1) + 1e-4).sqrt()
        return (self.target - std).clamp(min=0).mean()


class CovarianceLoss(nn.Module):
    """Squared covariances of different embedding dimensions.

    Sum over pairs of dimensions divided by D, mean over views.

    Source and Differs: as `VarianceLoss`.

    Example
    -------
    >>> CovarianceLoss()(torch.eye(3).unsqueeze(0)).item() > 0
    True
    """

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scalar; embeddings are (V, B, D)."""
        _, batch, dim = embeddings.shape
        with torch.autocast(embeddings.device.type, enabled=False):
            centred = embeddings.float() - embeddings.float().mean(1, True)
            covariance = centred.transpose(1, 2) @ centred / (batch - 1)
        squares = covariance.square()
        diagonal = squares.diagonal(dim1=1, dim2=2)
        return (squares.sum((1, 2)) - diagonal.sum(1)).mean() / dim


class _CrossView(torch.autograd.Function):
    """The loss above; its gradient is made in the same pass.

    The gradient of a view is its softmax times the number of its pairs, less
    its targets, both times a constant; it is kept instead of the inputs. The
    targets are scaled and summed in place: new memory costs more than
    arithmetic. On a CPU a few utterances at a time, which stay in its cache.
    """

    @staticmethod
    def forward(ctx, student, targets, temperature):
        views, batch, prototypes = student.shape
        terms = len(targets) * (views - 1) * batch
        kept = torch.empty_like(student, dtype=torch.float32)
        rows = batch
        if student.device.type == "cpu":
            rows = max(1, CPU_BLOCK // prototypes)
        parts = (x.split(rows, 1) for x in (kept, student, targets))
        losses = [
            _block(*part, temperature, 1 / (terms * temperature))
            for part in zip(*parts)
        ]
        ctx.kept, ctx.dtype = kept, student.dtype
        return sum(losses) / terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, above):
        gradient, ctx.kept = ctx.kept, None  # scaled in place, so once only
        gradient *= above
        return gradient.to(ctx.dtype), None, None


def _block(kept, student, targets, temperature, share):
    """Sum of the terms of some utterances; their gradient goes to `kept`."""
    longs, loss = len(targets), 0.0
    targets *= -share
    for view, gradient in enumerate(kept):
        if view < longs:
            target = _others(targets, view)
        elif view == longs:
            target = targets[0]
            for other in targets[1:]:
                target += other
        pairs = longs - (view < longs)
        torch.mul(student[view].float(), 1 / temperature, out=gradient)
        dot = torch.dot(target.flatten(), gradient.flatten())
        highest = gradient.amax(-1)
        torch.softmax(gradient, -1, out=gradient)
        # logsumexp from the largest term, without another exponential
        sums = highest - gradient.amax(-1).log()
        loss = loss + pairs * sums.sum() + dot / share
        torch.add(target, gradient, alpha=pairs * share, out=gradient)
    return loss


def _others(targets, view):
    """Sum of the teacher's views but one."""
    if len(targets) == 2:
        return targets[1 - view]
    return targets.sum(0) - targets[view]
