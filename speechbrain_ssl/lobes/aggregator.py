"""Global speaker vectors from embeddings under several conditions."""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes

AGGREGATIONS = ("attention", "value_map", "mean")


class CrossConditionAggregator(nn.Module):
    """Global speaker vectors by attention over the other conditions.

    The query is a slot's embedding under its interference; keys and values
    are the embeddings of one identity under the *other* conditions. The
    query's own condition is left out for every identity, not only for its
    own: with the slot itself among the keys the attention copies it; with R
    keys for strangers and R - 1 for itself the network learns to tell a mean
    of R from a mean of R - 1 (seen with R = 2: the loss fell to 1.4 nats
    while validation rose to chance); and the partner in the same mixture
    would be a key that nearly equals the query. R is 3 or more where attention
    is to learn: of two conditions one key is left, with a weight of one.

    Source: Wang et al. 2021, arXiv:2103.00816 (abstract).

    Differs: head count, layer norm on queries and keys, and the exclusion of
    the own condition are ours. So is that attention learns weights alone: its
    values are the embeddings themselves, so that what the loss compares is
    what is scored, and its queries start at zero, so that it starts as the
    mean. `aggregation="value_map"` is the usual layer: queries that start at
    random, values through a learned map that starts as the identity.
    `aggregation="mean"` is the mean of the same keys; the loss is then a
    leave-one-out centroid softmax, as in the generalised end-to-end family
    (Wan et al. 2018, arXiv:1710.10467).

    Arguments
    ---------
    embedding_dim : int
        D, divisible by `heads`.
    heads : int
        Attention heads.
    aggregation : str
        `attention`, `value_map` or `mean`.

    Raises
    ------
    BadInputError
        If `heads` does not divide D or the aggregation is unknown.

    Example
    -------
    >>> aggregator = CrossConditionAggregator(8, heads=2)
    >>> embeddings = F.normalize(torch.randn(6, 8), dim=-1)
    >>> identities = torch.tensor([0, 1, 2, 2, 0, 1])
    >>> aggregator(embeddings, identities, conditions=2).shape
    torch.Size([6, 3, 8])
    """

    def __init__(
        self, embedding_dim: int, heads: int = 4, aggregation: str = "attention"
    ):
        super().__init__()
        check_sizes(
            embedding_dim=(
                embedding_dim % heads == 0,
                embedding_dim,
                f"a multiple of heads ({heads})",
            ),
            aggregation=(
                aggregation in AGGREGATIONS,
                aggregation,
                "attention, value_map or mean",
            ),
        )
        self.heads = heads
        self.aggregation = aggregation
        self.to_value = nn.Identity()
        if aggregation != "mean":
            self.norm_query = nn.LayerNorm(embedding_dim)
            self.norm_key = nn.LayerNorm(embedding_dim)
            self.to_query = nn.Linear(embedding_dim, embedding_dim, bias=False)
            self.to_key = nn.Linear(embedding_dim, embedding_dim, bias=False)
        if aggregation == "attention":
            nn.init.zeros_(self.to_query.weight)
        if aggregation == "value_map":
            self.to_value = nn.Linear(embedding_dim, embedding_dim, bias=False)
            nn.init.eye_(self.to_value.weight)

    def forward(
        self,
        embeddings: torch.Tensor,
        identities: torch.Tensor,
        conditions: int,
    ) -> torch.Tensor:
        """Global vector of every identity as every slot sees it.

        Arguments
        ---------
        embeddings : torch.Tensor
            (N, D) unit vectors.
        identities : torch.Tensor
            (N,) numbers 0 to P - 1, each exactly `conditions` times; the r-th
            slot of every identity is that of condition r.
        conditions : int
            R = N / P, at least 2.

        Returns
        -------
        torch.Tensor
            (N, P, D) unit vectors.

        Raises
        ------
        ValueError
            If R is below 2 (an identity would have no other condition) or
            does not divide N.
        """
        slots, width = embeddings.shape
        if conditions < 2 or slots % conditions:
            raise ValueError(
                f"{slots} slots and {conditions} conditions: each identity "
                "needs the same number of conditions, 2 or more"
            )
        order = identities.argsort(stable=True)  # slots by identity
        own = order.reshape(-1, conditions)  # (P, R)
        number = order.argsort() % conditions  # (N,) the slot's condition
        rounds = torch.arange(conditions, device=own.device)
        same = number[:, None, None] == rounds.expand_as(own)  # (N, P, R)
        keys = embeddings[order]  # (P * R, D)
        weights = self._weights(embeddings, keys, same)  # (J, N, P, R)
        values = self.to_value(keys)
        values = values.reshape(*own.shape, self.heads, -1)  # (P, R, J, d)
        vectors = torch.einsum("jnpr,prjd->npjd", weights, values)
        return F.normalize(vectors.flatten(2), dim=-1)

    def _weights(self, queries, keys, same):
        if self.aggregation == "mean":
            scores = torch.zeros(self.heads, *same.shape, device=keys.device)
        else:
            scores = self._scores(queries, keys)
            scores = scores.reshape(self.heads, *same.shape)
        return scores.masked_fill(same, float("-inf")).softmax(-1)

    def _scores(self, queries, keys):
        width = queries.shape[-1] // self.heads
        queries = self.to_query(self.norm_query(queries))
        keys = self.to_key(self.norm_key(keys))
        queries = queries.reshape(len(queries), self.heads, width)
        keys = keys.reshape(len(keys), self.heads, width)
        return torch.einsum("njd,kjd->jnk", queries, keys) / width**0.5

    def enrol(self, embeddings: torch.Tensor) -> torch.Tensor:
        """One speaker vector from several enrolment utterances.

        The query is the mean of the embeddings, keys and values are all.

        Arguments
        ---------
        embeddings : torch.Tensor
            (K, D) unit vectors of one speaker.

        Returns
        -------
        torch.Tensor
            (D,) unit vector.
        """
        if self.aggregation == "mean":
            return F.normalize(embeddings.mean(0), dim=-1)
        weights = self._scores(embeddings.mean(0, keepdim=True), embeddings)
        weights = weights.softmax(-1)[:, 0]  # (J, K)
        values = self.to_value(embeddings).reshape(
            len(embeddings), self.heads, -1
        )
        vector = torch.einsum("jk,kjd->jd", weights, values)
        return F.normalize(vector.flatten(), dim=-1)
