"""Positives from other recordings, found by the model itself."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes
from speechbrain_ssl.dataio.manifest import identity_of
from speechbrain_ssl.evaluation.embed import embed_starts

BLOCK = 2**26  # similarities in memory at once: 256 MB


@register_checkpoint_hooks
class NeighbourPositives:
    """Table of the recordings that the current model finds closest.

    Two views of one recording share its channel, and a model may learn that.
    With this table the later half of an utterance's views comes from one of
    its neighbours (`UtteranceSampler.plan`). Embeds the training utterances
    every few epochs. No label is read; the table is saved with a checkpoint.

    Source: the idea of Lepage, Dehak, "Self-Supervised Frameworks for Speaker
    Verification via Bootstrapped Positive Sampling", arXiv:2501.17772.

    Differs: exact nearest neighbours instead of sampled clusters.

    Arguments
    ---------
    neighbours : int
        Closest recordings of which one is drawn; 0 turns it off.
    first_epoch : int
        From which on; the model has to know voices by then.
    every : int
        Epochs between two tables.
    apart : str
        `utterance` or `session`: what a neighbour must not share.

    Raises
    ------
    BadInputError
        If a value is out of range.
    """

    def __init__(
        self,
        neighbours: int = 0,
        first_epoch: int = 2,
        every: int = 1,
        apart: str = "utterance",
    ):
        check_sizes(
            neighbours=(neighbours >= 0, neighbours, "0 or more"),
            first_epoch=(first_epoch >= 1, first_epoch, "1 or more"),
            every=(every >= 1, every, "1 or more"),
            apart=(
                apart in ("utterance", "session"),
                apart,
                "utterance or session",
            ),
        )
        self.neighbours, self.apart = neighbours, apart
        self.first_epoch, self.every = first_epoch, every
        self.table = None

    def prepare(self, brain: Any, epoch: int) -> None:
        """Make the table anew where it is due; hand it to the sampler.

        Arguments
        ---------
        brain : EmbeddingBrain
            Its step, evaluated module, sampler and device are read.
        epoch : int
            That begins or goes on, from 1 on.
        """
        since = epoch - self.first_epoch
        due = self.neighbours and since >= 0 and since % self.every == 0
        rows = brain.sampler.rows
        # within an epoch the table was loaded; files may have gone since
        stale = self.table is not None and len(self.table) != len(rows)
        if (due and brain.step == 0) or stale:
            rank, processes = _place()
            mine = rows.iloc[rank::processes]
            vectors = embed_starts(brain.evaluated, mine, brain.device)
            vectors = _of_all(vectors, len(rows), brain.device)
            groups = pd.factorize(identity_of(rows, self.apart))[0]
            self.table = nearest(vectors, groups, self.neighbours, brain.device)
        brain.sampler.positives = self.table if self.neighbours else None

    @mark_as_saver
    def save(self, path):
        """Write the table."""
        table = self.table
        torch.save(None if table is None else torch.from_numpy(table), path)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read a table."""
        table = torch.load(path, weights_only=True)
        self.table = None if table is None else table.numpy()


def _place():
    """Rank of this process and how many there are."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _of_all(vectors, total, device):
    """Rows rank, rank + processes, ... of each process, in one order."""
    _, processes = _place()
    if processes == 1:
        return vectors
    most = -(-total // processes)
    own = torch.zeros(most, vectors.shape[1], device=device)
    own[: len(vectors)] = torch.from_numpy(vectors)
    parts = [torch.empty_like(own) for _ in range(processes)]
    torch.distributed.all_gather(parts, own)
    return torch.stack(parts, 1).flatten(0, 1)[:total].cpu().numpy()


def nearest(
    vectors: np.ndarray, groups: np.ndarray, count: int, device: str = "cpu"
) -> np.ndarray:
    """Rows of other groups with the highest cosine.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D), of any length.
    groups : numpy.ndarray
        (N,) integers.
    count : int
        Wanted for each row.
    device : str
        Where the products are computed.

    Returns
    -------
    numpy.ndarray
        (N, count) int32, nearest first; -1 where there are fewer.

    Example
    -------
    >>> vectors = np.array([[1, 0], [1, 0.1], [1, 0.2]])
    >>> nearest(vectors, np.array([0, 0, 1]), 1).ravel().tolist()
    [2, 2, 1]
    """
    units = torch.as_tensor(vectors, dtype=torch.float, device=device)
    units = F.normalize(units, dim=1)
    owners = torch.as_tensor(groups, device=device)
    table = np.full((len(units), count), -1, np.int32)
    most = min(count, len(units))
    step = max(1, BLOCK // len(units))
    for first in range(0, len(units), step):
        part = slice(first, first + step)
        products = units[part] @ units.T
        products.masked_fill_(owners[part, None] == owners, -torch.inf)
        values, places = products.topk(most, dim=1)
        places = places.masked_fill(values == -torch.inf, -1)
        table[part, :most] = places.cpu().numpy()
    return table
