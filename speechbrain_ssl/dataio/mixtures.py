"""Mixtures made on the fly: P identities under R interfering conditions.

A batch is planned first (`MixtureSampler`), then read and mixed, one mixture
at a time, in the loader's workers (`MixtureDataset`). Every draw comes from
the seed, the epoch and the position in it, so neither workers nor a resumed
run change what is heard.
"""

from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.augment import Augment
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.audio import fit_length, level, read_piece
from speechbrain_ssl.dataio.sampling import EpochSampler
from speechbrain_ssl.schedules import Scheduled, value_at

PEAK = 0.9  # of the loudest sample of a mixture
SILENCE = 1e-4  # level below which a crop is no speech
TRIES = 20  # draws for partners that differ, and for a crop that speaks


class MixturePlan(NamedTuple):
    """What goes into one mixture; silent slots have no entry.

    Arguments
    ---------
    rows : tuple of int
        Manifest rows of the talkers.
    starts : tuple of int
        First sample of each crop.
    gains_db : tuple of float
        Level of each talker relative to the first.
    identities : tuple of int
        Number of each identity within the batch, 0 to P - 1.
    seed : tuple of int
        Seed of the draws made while mixing.
    """

    rows: tuple[int, ...]
    starts: tuple[int, ...]
    gains_db: tuple[float, ...]
    identities: tuple[int, ...]
    seed: tuple[int, ...]


class MixtureSampler(EpochSampler):
    """Plans batches of P identities, each under R interfering conditions.

    A batch is R conditions one after the other. In each, every identity
    appears once, with other partners, another crop and another level; no
    identity meets itself. A share of the mixtures has one
    talker. Crops of one recording do not overlap where it is long enough.
    With several processes each takes its own batches of the same epoch.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    identity : str
        `speaker`, `session` or `utterance`: what counts as one identity.
    identities : int
        P, identities of a batch.
    conditions : int
        R, mixtures each identity appears in, 2 or more.
    sources : int
        C, talkers of a mixture.
    single_talker_share : float or schedule
        Share of mixtures with one talker, 0 to 1; a schedule is read at the
        number of epochs done, so that mixtures can come in gradually.
    level_range_db : float
        Largest level difference of a talker from the first, decibels.
    steps_per_epoch : int
        Batches of an epoch (on each process).
    crop_samples : int
        T; shorter recordings are repeated.
    seed : int
        Of all draws.
    rank, processes : int
        Of this process under distributed training.

    Raises
    ------
    BadInputError
        If a value is out of range or there are fewer identities than P.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        identity: str,
        identities: int,
        conditions: int,
        sources: int,
        single_talker_share: Scheduled,
        level_range_db: float,
        steps_per_epoch: int,
        crop_samples: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ):
        super().__init__(rows, identity, steps_per_epoch, seed, rank, processes)
        problems = []
        if len(self.names) < identities:
            problems.append(
                f"a batch needs {identities} identities, the corpus has "
                f"{len(self.names)} ({identity})"
            )
        if conditions < 2:
            problems.append(
                f"conditions is {conditions}; an identity needs 2 or more to "
                "be recognised under other interference"
            )
        if identities < 2 * sources:
            problems.append(
                f"identities is {identities}; {2 * sources} or more are "
                f"needed so that mixtures of {sources} can change partners"
            )
        if not 0 <= value_at(single_talker_share, 0) <= 1:
            problems.append(
                f"single_talker_share is {single_talker_share}; 0 to 1"
            )
        refuse("batches of mixtures", problems, "Correct the YAML value.")
        self.spans = rows[["start", "stop"]].to_numpy()
        self.identities, self.conditions = identities, conditions
        self.sources = sources
        self.single_talker_share = single_talker_share
        self.level_range_db = level_range_db
        self.crop_samples = crop_samples
        self.rows_of = self.members()
        self._order = None, None  # of a round: its key and identities

    def __iter__(self) -> Iterator[list[MixturePlan]]:
        for step in range(self.step, self.steps_per_epoch):
            yield self.plan(self.epoch, step * self.processes + self.rank)

    def plan(self, epoch: int, batch: int) -> list[MixturePlan]:
        """Plans of one batch.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        batch : int
            Counted from 0 over all processes.

        Returns
        -------
        list of MixturePlan
            The same number of mixtures throughout an epoch.
        """
        key = (self.seed, epoch, batch)
        generator = np.random.default_rng(key)
        chosen = self._identities(epoch, batch)
        crops = [self._crops(code, generator) for code in chosen]
        taken = [0] * len(chosen)
        plans = []
        groups = self._partners(self.singles(epoch), generator)
        for number, group in enumerate(groups):
            places = [crops[member][taken[member]] for member in group]
            for member in group:
                taken[member] += 1
            gains = generator.uniform(-1, 1, len(group)) * self.level_range_db
            gains[0] = 0
            plans.append(
                MixturePlan(
                    rows=tuple(int(row) for row, _ in places),
                    starts=tuple(int(start) for _, start in places),
                    gains_db=tuple(gains.tolist()),
                    identities=tuple(group),
                    seed=(*key, number),
                )
            )
        return plans

    def singles(self, epoch: int) -> list[int]:
        """Mixtures of one talker in each condition; the rest fill mixtures.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Returns
        -------
        list of int
            R numbers; their sum is as near to the share as whole mixtures
            allow.
        """
        share = value_at(self.single_talker_share, epoch - 1)
        slots = self.identities * self.conditions
        wanted = share * slots / (self.sources - share * (self.sources - 1))
        least = self.identities % self.sources
        groups = round((wanted - least * self.conditions) / self.sources)
        each, more = divmod(max(0, groups), self.conditions)
        return [
            least + self.sources * (each + (condition < more))
            for condition in range(self.conditions)
        ]

    def _identities(self, epoch, batch):
        """Every identity comes once before one comes twice."""
        per_round = len(self.names) // self.identities
        turn, position = divmod(batch, per_round)
        key = (self.seed, epoch, turn, 0, 0)
        if self._order[0] != key:
            generator = np.random.default_rng(key)
            self._order = key, generator.permutation(len(self.names))
        order = self._order[1]
        return order[position * self.identities :][: self.identities]

    def _crops(self, code, generator):
        members = generator.permutation(self.rows_of[code])
        members = members[: self.conditions]
        counts = np.bincount(
            np.arange(self.conditions) % len(members), minlength=len(members)
        )
        crops = []
        for row, count in zip(members, counts):
            start, stop = self.spans[row]
            slack = stop - start - count * self.crop_samples
            if slack >= 0:  # pieces in order, the slack spread between them
                gaps = np.sort(generator.integers(0, slack + 1, count))
                places = gaps + np.arange(count) * self.crop_samples
            else:
                room = max(0, stop - start - self.crop_samples)
                places = generator.integers(0, room + 1, count)
            crops += [(row, start + place) for place in places]
        return [crops[i] for i in generator.permutation(len(crops))]

    def _partners(self, singles, generator):
        """Groups of identities; the draw with fewest repeated partners."""
        best = None
        for _ in range(TRIES):
            groups = [
                group
                for single in singles
                for group in self._round(single, generator)
            ]
            pairs = [
                (min(a, b), max(a, b))
                for group in groups
                for i, a in enumerate(group)
                for b in group[:i]
            ]
            repeats = len(pairs) - len(set(pairs))
            if best is None or repeats < best[0]:
                best = repeats, groups
            if repeats == 0:
                break
        return best[1]

    def _round(self, single, generator):
        """Every identity once: singles, then groups of C."""
        order = generator.permutation(self.identities).tolist()
        edges = [*range(single), *range(single, len(order), self.sources)]
        ends = [*edges[1:], len(order)]
        return [tuple(order[a:b]) for a, b in zip(edges, ends)]


class MixtureDataset(torch.utils.data.Dataset):
    """Reads, levels and mixes what a plan names.

    Sources are cropped, brought to one level, set to the drawn levels,
    reverberated (each in its own room) and summed; mixture and clean sources
    are scaled together, then noise is added to the mixture. The targets stay
    dry and clean.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    sources : int
        C.
    crop_samples : int
        T.
    augment : Augment, optional
        Noise and rooms.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmpdir")
    >>> soundfile.write(f"{folder}/a.wav", np.random.randn(800) / 10, 16000)
    >>> rows = pd.DataFrame(
    ...     {"wav": [f"{folder}/a.wav"], "start": [0], "stop": [800]}
    ... )
    >>> plan = MixturePlan((0,), (100,), (0.0,), (3,), (1, 1, 0, 0))
    >>> item = MixtureDataset(rows, sources=2, crop_samples=400)[plan]
    >>> item["mixture"].shape, item["sources"].shape, item["identities"]
    (torch.Size([400]), torch.Size([2, 400]), tensor([ 3, -1]))
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        sources: int,
        crop_samples: int,
        augment: Optional[Augment] = None,
        entries: Optional[np.ndarray] = None,
    ):
        self.files = rows["wav"].to_numpy()
        self.spans = rows[["start", "stop"]].to_numpy()
        self.entries = np.arange(len(rows)) if entries is None else entries
        self.sources, self.crop_samples = sources, crop_samples
        self.augment = augment or Augment()

    def __getitem__(self, plan: MixturePlan) -> dict[str, torch.Tensor]:
        """One mixture.

        Arguments
        ---------
        plan : MixturePlan
            What to mix.

        Returns
        -------
        dict
            `mixture` (T,), `sources` (C, T), `identities` (C,) within the
            batch and `entries` (C,) within the corpus; -1 in silent slots.
        """
        generator = np.random.default_rng(plan.seed)
        waves = torch.zeros(1 + self.sources, self.crop_samples)
        mixture, sources = waves[0], waves[1:]
        for slot, row in enumerate(plan.rows):
            wave, now = self._crop(row, plan.starts[slot], generator)
            wanted = 10 ** (plan.gains_db[slot] / 20)
            torch.mul(wave, wanted / now, out=sources[slot])
            mixture += self.augment.reverberate(sources[slot], generator)
        waves *= PEAK / max(abs(edge) for edge in torch.aminmax(waves))
        mixture = self.augment.add_noise(mixture, generator)
        silent = [-1] * (self.sources - len(plan.rows))
        return {
            "mixture": mixture,
            "sources": sources,
            "identities": torch.tensor([*plan.identities, *silent]),
            "entries": torch.tensor(
                [int(self.entries[row]) for row in plan.rows] + silent
            ),
        }

    def _crop(self, row, start, generator):
        first, last = (int(edge) for edge in self.spans[row])
        for _ in range(TRIES):
            stop = min(last, start + self.crop_samples)
            wave = read_piece(self.files[row], start, stop)
            wave = fit_length(wave, self.crop_samples)
            loudness = level(wave)
            if loudness > SILENCE:
                return wave, loudness
            room = max(0, last - first - self.crop_samples)
            start = first + int(generator.integers(room + 1))
        return self._loudest(self.files[row], first, last)

    def _loudest(self, path, first, last):
        """The crop to use of a recording that hardly speaks."""
        wave = read_piece(path, first, last)
        pieces = wave.split(self.crop_samples)
        wave = max(pieces, key=lambda piece: piece.square().sum())
        silent = not wave.any()
        problems = [f"samples {first} to {last} are all silent"] * silent
        refuse(path, problems, "Remove it and run the preparation again.")
        wave = fit_length(wave, self.crop_samples)
        return wave, level(wave)
