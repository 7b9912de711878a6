"""Losses of Contrastive Separative Coding (CSC).

Source: Wang, Lam, Su, Yu, "Contrastive Separative Coding for Self-supervised
Representation Learning", ICASSP 2021, arXiv:2103.00816. The paper's equations
could not be compared line by line; what follows its description and what is
our choice is said at each class under `Differs`.
"""

import math
from itertools import permutations
from typing import Optional

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.si_snr import EPSILON, si_snr_matrix

CONTRAST_SETS = ("batch", "inventory", "mixture")


class SISNRLoss(nn.Module):
    """Negative SI-SNR under the best assignment of slots to sources.

    The separation term of CSC. One search over the C! assignments, on a
    (C, C) matrix per mixture; the winner orders the slots for every speaker
    term, so it is returned.

    Source: Kolbaek et al., "Multi-talker speech separation with
    utterance-level permutation invariant training", 2017, arXiv:1703.06284.

    Differs: a silent source (single-talker mixture) has no SI-SNR. Its slot
    is asked to be quiet instead: its part of the mixture's energy in
    decibels, with a floor of -`most_db`, takes the place of the SI-SNR. The
    loudest slot of a single talker is then the talker's.

    Arguments
    ---------
    most_db : float
        Slots better than this give no gradient; decibels, 10 to 60. Keeps
        mixtures that are already separated from dominating the batch: the
        gradient of a decibel grows as the error falls. Short trainings want
        10, as single talkers are soon near 30 and mixtures never.

    Example
    -------
    >>> sources = torch.randn(4, 2, 800)
    >>> loss, permutation = SISNRLoss()(sources.flip(1), sources)
    >>> permutation[0].tolist()
    [1, 0]
    """

    def __init__(self, most_db: float = 30.0):
        super().__init__()
        if most_db <= 0:
            refuse(
                "SISNRLoss",
                [f"most_db is {most_db}; it is a positive number of decibels"],
                "Try 30.",
            )
        self.most_db = most_db
        self.orders = torch.empty(0, 0)  # (C!, C), made once on a device

    def forward(
        self, estimates: torch.Tensor, sources: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and the assignment that gives it.

        Arguments
        ---------
        estimates : torch.Tensor
            (B, C, T) slot waveforms.
        sources : torch.Tensor
            (B, C, T) clean sources; all zeros where there is none.

        Returns
        -------
        tuple of torch.Tensor
            Scalar loss in decibels (the lower the better) and permutation
            (B, C): `permutation[b, c]` is the source that slot c holds.

        Raises
        ------
        ValueError
            If the two shapes differ.
        """
        if estimates.shape != sources.shape:
            raise ValueError(
                f"estimates {tuple(estimates.shape)} and sources "
                f"{tuple(sources.shape)} must have one shape (B, C, T)"
            )
        energy = estimates.float().square().sum(-1)  # (B, C)
        mixture = sources.float().sum(1).square().sum(-1)  # (B,)
        share = energy / (mixture[:, None] + EPSILON)
        quiet = -10 * torch.log10(share + 10 ** (-self.most_db / 10))
        silent = sources.abs().amax(-1) == 0  # (B, C)
        quality = torch.where(
            silent[:, None, :],
            quiet[:, :, None],
            si_snr_matrix(estimates, sources),
        ).clamp(max=self.most_db)  # (B, slots, sources)
        count = sources.shape[1]
        if (self.orders.device, self.orders.shape[1]) != (
            sources.device,
            count,
        ):
            every = list(permutations(range(count)))
            self.orders = torch.tensor(every, device=sources.device)
        orders = self.orders
        slots = torch.arange(count, device=sources.device)
        totals = quality[:, slots, orders].mean(-1)  # (B, C!)
        best, winner = totals.max(-1)
        return -best.mean(), orders[winner]


class CSCLoss(nn.Module):
    """Contrastive separative loss: pick the slot's own global speaker vector.

    -mean log [ f(h, g_own) / sum over the contrast set of f(h, g_n) ] with
    f(h, g) = exp(-alpha ||h - g||^2): the slot's embedding h is modelled as a
    Gaussian around the global vector of its identity, and the minimum of the
    loss maximises a lower bound on their mutual information, `log_set` of the
    last call less the loss: the mean logarithm of the contrast sets, nats.

    Every member of the contrast set is enumerated, none is sampled. A
    denominator is nevertheless required: attraction alone is minimised by a
    constant embedding, and one identity alone gives zero for any embedding.

    Source: Wang et al. 2021, arXiv:2103.00816 (abstract); kernel: Zeghidour,
    Grangier, "Wavesplit", 2020, arXiv:2002.08933; bound: van den Oord et al.
    2018, arXiv:1807.03748.

    Differs: the paper's contrast set is not known to us. `batch` contrasts
    with all identities of the batch and is our default; `inventory` with a
    learned table of all training identities, whose rows follow them: each
    global vector has to pick its row as well (without it rows are only ever
    repelled, and a constant embedding that they flee has zero loss);
    `mixture` only with the talkers of the same mixture, the literal reading,
    which is solved by telling two voices apart and harms verification.

    Arguments
    ---------
    contrast_set : str
        `batch`, `inventory` or `mixture`.
    scale : float
        Initial alpha > 0; learned. 5 equals a cosine temperature of 0.1 for
        unit vectors.
    inventory_size : int, optional
        Training identities; only for `inventory`.
    embedding_dim : int, optional
        D; only for `inventory`.

    Raises
    ------
    BadInputError
        If the contrast set is unknown or an argument does not fit it.

    Example
    -------
    >>> embeddings = F.normalize(torch.randn(4, 8), dim=-1)
    >>> vectors = F.normalize(torch.randn(4, 2, 8), dim=-1)
    >>> loss = CSCLoss()(embeddings, vectors, torch.tensor([0, 0, 1, 1]))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        contrast_set: str = "batch",
        scale: float = 5.0,
        inventory_size: Optional[int] = None,
        embedding_dim: Optional[int] = None,
    ):
        super().__init__()
        problems = []
        if contrast_set not in CONTRAST_SETS:
            problems.append(
                f"contrast_set is '{contrast_set}'; it is one of "
                f"{', '.join(CONTRAST_SETS)}"
            )
        if scale <= 0:
            problems.append(f"scale is {scale}; it is above 0")
        if contrast_set == "inventory" and not (
            inventory_size and embedding_dim
        ):
            problems.append("inventory needs inventory_size and embedding_dim")
        refuse("CSCLoss", problems, "Correct the loss in the YAML.")
        self.contrast_set, self.log_set = contrast_set, None
        self.raw_scale = nn.Parameter(torch.tensor(math.log(math.expm1(scale))))
        if contrast_set == "inventory":
            self.inventory = nn.Parameter(
                torch.randn(inventory_size, embedding_dim)
            )

    def forward(
        self,
        embeddings: torch.Tensor,
        speaker_vectors: torch.Tensor,
        identities: torch.Tensor,
        mixtures: Optional[torch.Tensor] = None,
        entries: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """Mean loss over slots, in nats.

        Arguments
        ---------
        embeddings : torch.Tensor
            (N, D) unit vectors, one per slot that holds a talker.
        speaker_vectors : torch.Tensor
            (N, P, D) unit vectors: the global vector of each of the batch's
            P identities as slot i's query sees it.
        identities : torch.Tensor
            (N,) the slot's identity, 0 to P - 1.
        mixtures : torch.Tensor, optional
            (N,) number of the slot's mixture; only for `mixture`.
        entries : torch.Tensor, optional
            (N,) the identity's row of the inventory; only for `inventory`.

        Returns
        -------
        torch.Tensor
            Scalar.
        """
        with torch.autocast(device_type=embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            speaker_vectors = speaker_vectors.float()
            alpha = F.softplus(self.raw_scale)
            if self.contrast_set == "inventory":
                slots = torch.arange(len(identities), device=identities.device)
                own = speaker_vectors[slots, identities]
                return self._with_inventory(embeddings, own, entries, alpha)
            distances = (embeddings[:, None] - speaker_vectors).square().sum(-1)
            logits = -alpha * distances  # (N, P)
            members = torch.ones_like(logits)
            if self.contrast_set == "mixture":
                member = F.one_hot(identities, logits.shape[1]).float()
                together = (mixtures[:, None] == mixtures).float()
                members = together @ member  # (N, P)
                logits = logits.masked_fill(members == 0, float("-inf"))
            self.log_set = members.count_nonzero(1).log().mean()
            return F.cross_entropy(logits, identities)

    def _with_inventory(self, embeddings, own, entries, alpha):
        """Slots pick their vector among the rows, vectors pick their row."""
        table = F.normalize(self.inventory, dim=-1)
        rows = -alpha * torch.cdist(embeddings, table).square()  # (N, S)
        rows = rows.scatter(1, entries[:, None], -torch.inf)
        mine = -alpha * (embeddings - own).square().sum(-1, keepdim=True)
        logits = torch.cat([mine, rows], dim=1)  # (N, 1 + S), own row out
        follow = -alpha * torch.cdist(own, table).square()
        self.log_set = torch.full_like(alpha, len(table)).log()
        return F.cross_entropy(
            logits, torch.zeros_like(entries)
        ) + F.cross_entropy(follow, entries)
