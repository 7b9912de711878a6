"""What batch samplers of every method have in common."""

import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.dataio.manifest import identity_of


class EpochSampler(torch.utils.data.Sampler):
    """Plans the batches of an epoch on one process, from any of its steps on.

    A method's sampler yields plans of the batches from `step` to
    `steps_per_epoch`. `entries` holds the label of each manifest row, `names`
    what the labels mean.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    identity : str
        `utterance`, `session` or `speaker`: what the labels tell apart.
    steps_per_epoch : int
        Batches of an epoch on each process.
    seed : int
        Of all draws.
    rank, processes : int
        Of this process under distributed training.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        identity: str,
        steps_per_epoch: int,
        seed: int,
        rank: int,
        processes: int,
    ):
        self.rows = rows
        labels = identity_of(rows, identity)
        self.entries, names = pd.factorize(labels, sort=True)
        self.names = list(names)
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self.rank, self.processes = rank, processes
        self.start_at(epoch=1, step=0)

    def start_at(self, epoch: int, step: int) -> None:
        """Say which epoch comes next and how many of its batches are done."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return self.steps_per_epoch - self.step

    def members(self) -> list[np.ndarray]:
        """Row numbers of each label."""
        order = np.argsort(self.entries, kind="stable")
        sizes = np.bincount(self.entries, minlength=len(self.names))
        return np.split(order, np.cumsum(sizes)[:-1])
