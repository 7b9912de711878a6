"""Signs that a non-contrastive training has collapsed.

Two modes are known: a teacher that gives every prototype the same
probability, which centring alone leads to, and one prototype (or two) that
takes everything, which sharpening alone leads to (Caron et al. 2021,
arXiv:2104.14294, section 5.3). Embeddings that all point one way are the
outcome of either.
"""

import math
from typing import Optional

import torch
from torch.nn import functional as F

UNIFORM = 0.99  # share of ln K above which the teacher says nothing
DOMINANT = 0.9  # share of views that one prototype may win
FEW = 2  # prototypes that may share all views
SAME = 0.9999  # mean cosine above which embeddings are one vector
LINE = 1.5  # effective rank of embeddings on a line


class TeacherWatch:
    """Counts, on the device, which prototypes the teacher's views choose.

    Arguments
    ---------
    prototypes : int
        K.
    device : torch.device
        Of the winners.
    most : int
        Embeddings kept for `figures`.

    Example
    -------
    >>> watch = TeacherWatch(8, torch.device("cpu"))
    >>> watch.add(torch.tensor([[1, 1], [2, 1]]), torch.randn(2, 5))
    >>> figures = watch.figures()
    >>> figures["prototypes_in_use"], figures["top_prototype_share"]
    (2, 0.75)
    """

    def __init__(self, prototypes: int, device: torch.device, most: int = 1024):
        self.wins = torch.zeros(prototypes, dtype=torch.long, device=device)
        self.recent, self.most = [], most

    @torch.no_grad()
    def add(self, winners: torch.Tensor, embeddings: torch.Tensor) -> None:
        """Count a batch.

        Arguments
        ---------
        winners : torch.Tensor
            (U, B) most probable prototype of each teacher view.
        embeddings : torch.Tensor
            (B, D) of one view of each utterance.
        """
        winners = winners.flatten()
        self.wins.scatter_add_(0, winners, torch.ones_like(winners))
        self.recent.append(embeddings.detach())
        kept = max(1, self.most // len(embeddings))
        del self.recent[:-kept]

    def figures(self) -> dict[str, float]:
        """Prototype use and spread of the last embeddings.

        Returns
        -------
        dict
            prototypes_in_use, top_prototype_share, mean_cosine,
            embedding_spread, effective_rank.
        """
        total = max(1, int(self.wins.sum()))
        return {
            "prototypes_in_use": int((self.wins > 0).sum()),
            "top_prototype_share": int(self.wins.max()) / total,
            **embedding_statistics(torch.cat(self.recent).nan_to_num(0, 0, 0)),
        }


def embedding_statistics(embeddings: torch.Tensor) -> dict[str, float]:
    """Spread of embeddings of different utterances.

    Arguments
    ---------
    embeddings : torch.Tensor
        (N, D), N at least 2.

    Returns
    -------
    dict
        mean_cosine between different rows; embedding_spread, the mean
        standard deviation of unit vectors times sqrt(D), 1 when they fill the
        sphere; effective_rank, the exponential of the entropy of the
        covariance's normalised singular values (Roy and Vetterli, EUSIPCO
        2007).

    Example
    -------
    >>> figures = embedding_statistics(torch.eye(4))
    >>> round(figures["mean_cosine"], 4), round(figures["effective_rank"], 4)
    (0.0, 3.0)
    """
    unit = F.normalize(embeddings.detach().float(), dim=-1)
    count, dim = unit.shape
    total = unit.sum(0).square().sum()
    values = torch.linalg.svdvals(unit - unit.mean(0)).square()
    shares = values / values.sum().clamp(min=1e-12)
    entropy = torch.special.entr(shares).sum()
    spread = unit.std(0).mean() * dim**0.5
    return {
        "mean_cosine": float((total - count) / (count * (count - 1))),
        "embedding_spread": float(spread),
        "effective_rank": float(entropy.exp()),
    }


def verdict(
    epochs: list[dict[str, float]], prototypes: int, patience: int = 3
) -> Optional[str]:
    """What has collapsed in each of the last epochs, if anything has.

    A training that starts can look like a collapse for an epoch; one that
    stays so for `patience` epochs does not recover.

    Arguments
    ---------
    epochs : list of dict
        Figures of every epoch, with `teacher_entropy` and those of
        `TeacherWatch`.
    prototypes : int
        K.
    patience : int
        Epochs that have to agree.

    Returns
    -------
    str or None
        One sentence; None while nothing is certain.

    Example
    -------
    >>> epoch = {
    ...     "teacher_entropy": math.log(64),
    ...     "top_prototype_share": 0.1,
    ...     "prototypes_in_use": 40,
    ...     "mean_cosine": 0.5,
    ...     "effective_rank": 9.0,
    ... }
    >>> verdict([epoch] * 3, prototypes=64)[:44]
    'the teacher gives all prototypes the same pr'
    >>> verdict([epoch] * 2, prototypes=64) is None
    True
    """
    if len(epochs) < patience:
        return None
    signs = [_signs(epoch, prototypes) for epoch in epochs[-patience:]]
    for name, sentence in signs[-1].items():
        if all(name in sign for sign in signs):
            return f"{sentence}, and this for {patience} epochs"
    return None


def _signs(epoch, prototypes):
    signs = {}
    entropy, whole = epoch["teacher_entropy"], math.log(prototypes)
    if entropy > UNIFORM * whole:
        signs["uniform"] = (
            "the teacher gives all prototypes the same probability "
            f"(entropy {entropy:.3f} of at most {whole:.3f} nats)"
        )
    share, used = epoch["top_prototype_share"], epoch["prototypes_in_use"]
    if share > DOMINANT or used <= FEW:
        signs["dominant"] = (
            f"one prototype wins {100 * share:.0f} % of the teacher's views "
            f"({used:.0f} of {prototypes} are in use)"
        )
    cosine, rank = epoch["mean_cosine"], epoch["effective_rank"]
    if cosine > SAME or rank < LINE:
        signs["embeddings"] = (
            f"embeddings of different utterances are the same (mean cosine "
            f"{cosine:.4f}, effective rank {rank:.1f})"
        )
    return signs
