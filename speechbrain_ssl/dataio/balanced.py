"""Batches of as many utterances of each of some speakers."""

from collections.abc import Iterator
from typing import Optional

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.views import UtteranceSampler, ViewPlan


class BalancedSampler(UtteranceSampler):
    """Plans batches of as many utterances of each of some speakers.

    Each speaker comes once before one comes twice, and takes its utterances
    in turn; one with fewer than a batch needs repeats them in other crops.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    batch_size : int
        P x K, utterances of a batch on each process.
    seed : int
        Of all draws.
    utterances : int
        K, utterances of each speaker; 1 is an `UtteranceSampler`, which does
        not look at the speakers.
    identity, steps_per_epoch, rank, processes
        As in `UtteranceSampler`.

    Raises
    ------
    BadInputError
        If the corpus has fewer speakers (with K of 1: utterances) than the
        processes need at a step, or K does not divide the batch.

    Example
    -------
    >>> rows = pd.DataFrame({"wav": list("abcdef"), "spk_id": list("xxyyzz")})
    >>> sampler = BalancedSampler(rows, batch_size=4, seed=1, utterances=2)
    >>> [[sampler.names[sampler.entries[p.row]] for p in b] for b in sampler]
    [['z', 'z', 'x', 'x']]
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        batch_size: int,
        seed: int,
        utterances: int = 1,
        identity: str = "speaker",
        steps_per_epoch: Optional[int] = None,
        rank: int = 0,
        processes: int = 1,
    ):
        self.each = utterances
        self.speakers, surplus = divmod(batch_size, max(1, utterances))
        problems = []
        if utterances < 1 or surplus:
            problems.append(
                f"{utterances} utterances of each speaker do not fill a batch "
                f"of {batch_size}"
            )
        refuse("balanced batches", problems, "Correct the YAML value.")
        super().__init__(
            rows, batch_size, seed, identity, steps_per_epoch, rank, processes
        )

    def keep(self, kept: np.ndarray) -> None:
        """Plan only some rows from now on, by the labels of now."""
        if self.each == 1:
            super().keep(kept)
            return
        self.kept = kept
        inside = np.zeros(len(self.entries), bool)
        inside[kept] = True
        self.rows_of = [own[inside[own]] for own in self.members()]
        self.left = np.flatnonzero([len(own) for own in self.rows_of])
        needed = self.speakers * self.processes
        problem = (
            f"a step needs {needed} speakers, the corpus has {len(self.left)}"
        )
        refuse(
            "balanced batches",
            [problem] if len(self.left) < needed else [],
            "Lower batch_size or raise the utterances of a speaker.",
        )

    def __iter__(self) -> Iterator[list[ViewPlan]]:
        if self.each == 1:
            yield from super().__iter__()
            return
        per_round = len(self.left) // (self.speakers * self.processes)
        for step in range(self.step, self.steps_per_epoch):
            turn, place = divmod(step, per_round)
            generator = np.random.default_rng((self.seed, self.epoch, turn))
            order = generator.permutation(self.left)
            first = (place * self.processes + self.rank) * self.speakers
            yield [
                plan
                for speaker in order[first : first + self.speakers]
                for plan in self._utterances(int(speaker), turn)
            ]

    def _utterances(self, speaker, turn):
        key = (self.seed, self.epoch, 0, speaker)
        own = np.random.default_rng(key).permutation(self.rows_of[speaker])
        for place in range(turn * self.each, (turn + 1) * self.each):
            visit, place = divmod(place, len(own))
            yield self.plan(visit, int(own[place]))
