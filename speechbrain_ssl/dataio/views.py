"""Several views of an utterance from one read of its file.

A batch is planned first (`UtteranceSampler`), then read, cut and augmented,
one utterance at a time, in the loader's workers (`ViewDataset`). Every draw
comes from the seed, the epoch, the utterance and the view, so neither workers
nor a resumed run change what is heard.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.augment import Augment
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.audio import fit_length, read_piece
from speechbrain_ssl.dataio.sampling import EpochSampler


class ViewPlan(NamedTuple):
    """Which utterance, and the seed of what is drawn for it.

    Arguments
    ---------
    row : int
        Manifest row.
    seed : tuple of int
        Seed, epoch, visit within the epoch and row.
    positive : int, optional
        Manifest row of another recording, from which the later half of each
        group of views comes.
    """

    row: int
    seed: tuple[int, ...]
    positive: Optional[int] = None


class UtteranceSampler(EpochSampler):
    """Plans batches of utterances; each comes once before one comes twice.

    With several processes each takes its own batches of the same epoch.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    batch_size : int
        B, utterances of a batch on each process.
    seed : int
        Of all draws.
    identity : str
        `utterance`, `session` or `speaker`: what the labels of a batch name.
    steps_per_epoch : int, optional
        Batches of an epoch on each process; by default the corpus once.
    rank, processes : int
        Of this process under distributed training.

    Raises
    ------
    BadInputError
        If the corpus has fewer utterances than the processes need at a step.

    Example
    -------
    >>> rows = pd.DataFrame({"wav": list("abcde")})
    >>> sampler = UtteranceSampler(rows, batch_size=2, seed=1)
    >>> len(sampler), [len(batch) for batch in sampler]
    (2, [2, 2])
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        batch_size: int,
        seed: int,
        identity: str = "utterance",
        steps_per_epoch: Optional[int] = None,
        rank: int = 0,
        processes: int = 1,
    ):
        problem = f"batch_size is {batch_size}; 2 or more is needed"
        refuse(
            "batches of utterances",
            [problem] if batch_size < 2 else [],
            "Raise batch_size.",
        )
        self.batch_size = batch_size
        once = max(1, len(rows) // (batch_size * processes))
        steps_per_epoch = steps_per_epoch or once
        super().__init__(rows, identity, steps_per_epoch, seed, rank, processes)
        self.positives = None
        self.keep(np.arange(len(rows)))

    def keep(self, kept: np.ndarray) -> None:
        """Plan only some rows from now on.

        Arguments
        ---------
        kept : numpy.ndarray
            Row numbers, as many as all processes need at a step.
        """
        needed = self.batch_size * self.processes
        given = f"the corpus has {len(self.rows)}"
        if len(kept) < len(self.rows):
            given += f", of which {len(kept)} are left"
        problem = f"a step needs {needed} utterances, {given}"
        refuse(
            "batches of utterances",
            [problem] if len(kept) < needed else [],
            "Lower batch_size, give more data or leave fewer out.",
        )
        self.kept = kept

    def plan(self, visit: int, row: int) -> ViewPlan:
        """Plan of a row, with one of its positives where there are some.

        `positives` is None or (N, k) row numbers of other recordings, -1
        where there are fewer than k.
        """
        seed = (self.seed, self.epoch, visit, row)
        if self.positives is None:
            return ViewPlan(row, seed)
        near = self.positives[row]
        near = near[near >= 0]
        if not len(near):
            return ViewPlan(row, seed)
        draw = np.random.default_rng((*seed, len(near)))
        return ViewPlan(row, seed, int(draw.choice(near)))

    def __iter__(self) -> Iterator[list[ViewPlan]]:
        order, last = None, None
        # steps before one comes again
        per_visit = len(self.kept) // (self.batch_size * self.processes)
        for step in range(self.step, self.steps_per_epoch):
            visit, place = divmod(step, per_visit)
            if visit != last:
                key = (self.seed, self.epoch, visit)
                order = np.random.default_rng(key).permutation(self.kept)
                last = visit
            first = (place * self.processes + self.rank) * self.batch_size
            yield [
                self.plan(visit, int(row))
                for row in order[first : first + self.batch_size]
            ]


class ViewDataset(torch.utils.data.Dataset):
    """Reads an utterance once and cuts it into views of one or more lengths.

    Starts are uniform, so views may overlap. An utterance shorter than a crop
    is repeated, and all its crops of that length are the whole of it. Each
    view is augmented by a draw of its own.

    Source: long and short crops of Cho et al. 2022, arXiv:2208.05413.

    Differs: of a recording longer than `span_seconds` a random span is read,
    and all views are cut from it, so that an hour costs no more than a
    minute; there is no left context before the room.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    entries : array of int
        Label of each row.
    seconds : sequence of float
        Length of each group of views, the longest first.
    views : sequence of int
        Views of each group.
    sample_rate : int
        Hz.
    augment : Augment, optional
        Noise and rooms.
    augmentations : sequence of str
        Kind of the first views in their order, see `Augment.apply`; the rest
        are `random`.
    shared_crops : bool
        Whether all views of a group are cut at the same place.
    repeat_short : bool
        Whether an utterance shorter than the shortest crop is repeated too,
        instead of refused.
    span_seconds : float
        Longest piece of a file that is read.

    Raises
    ------
    BadInputError
        If an utterance is shorter than the shortest crop without
        `repeat_short`, or the groups do not fit.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmpdir")
    >>> soundfile.write(f"{folder}/a.wav", np.random.randn(1600) / 10, 16000)
    >>> rows = pd.DataFrame(
    ...     {"wav": [f"{folder}/a.wav"], "start": [0], "stop": [1600]}
    ... )
    >>> dataset = ViewDataset(rows, [0], seconds=[0.08, 0.04], views=[2, 4])
    >>> item = dataset[ViewPlan(0, (1, 1, 0, 0))]
    >>> item["views_0"].shape, item["views_1"].shape, int(item["labels"])
    (torch.Size([2, 1280]), torch.Size([4, 640]), 0)
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        entries: Sequence[int],
        seconds: Sequence[float],
        views: Sequence[int],
        sample_rate: int = 16000,
        augment: Optional[Augment] = None,
        augmentations: Sequence[str] = (),
        shared_crops: bool = False,
        repeat_short: bool = False,
        span_seconds: float = 20.0,
    ):
        self.crops = [round(second * sample_rate) for second in seconds]
        self.views = list(views)
        self.span = max(round(span_seconds * sample_rate), *self.crops)
        problems = []
        if len(self.crops) != len(self.views) or not self.crops:
            problems.append(
                f"{len(seconds)} lengths are given for {len(views)} groups "
                "of views"
            )
        if self.crops != sorted(self.crops, reverse=True):
            problems.append(f"lengths are {list(seconds)}; longest first")
        if any(number < 1 for number in views):
            problems.append(f"views are {list(views)}; 1 or more of each")
        if len(augmentations) > sum(views):
            problems.append(
                f"{len(augmentations)} augmentations are given for "
                f"{sum(views)} views"
            )
        refuse("views", problems, "Correct the YAML value.")
        lengths = (rows["stop"] - rows["start"]).to_numpy()
        refuse(
            "training utterances",
            [
                f"{path} has {length} samples; the shortest crop has "
                f"{self.crops[-1]}"
                for path, length in zip(rows["wav"], lengths)
                if length < self.crops[-1] and not repeat_short
            ],
            "Shorten the crops, set repeat_short, or take these out of the "
            "training folder.",
        )
        self.files = rows["wav"].to_numpy()
        self.spans = rows[["start", "stop"]].to_numpy()
        self.entries = entries
        self.augment = augment or Augment()
        self.augment.check(augmentations)
        rest = sum(self.views) - len(augmentations)
        self.kinds = [*augmentations, *["random"] * rest]
        self.shared_crops = shared_crops

    def __getitem__(self, plan: ViewPlan) -> dict[str, torch.Tensor]:
        """Views of one utterance.

        Arguments
        ---------
        plan : ViewPlan
            What to read, and the seed.

        Returns
        -------
        dict
            `views_0` (V_0, T_0), `views_1` ..., and the scalars `labels` and
            `rows`.
        """
        draw = np.random.default_rng(plan.seed)
        halves = [0 if plan.positive is None else n // 2 for n in self.views]
        rests = [n - half for n, half in zip(self.views, halves)]
        cuts = self._cuts(plan.row, rests, draw)
        if plan.positive is not None:
            others = self._cuts(plan.positive, halves, draw)
            cuts = [[*own, *other] for own, other in zip(cuts, others)]
        item, view = {}, 0
        for number, group in enumerate(cuts):
            heard = []
            for wave in group:
                own = np.random.default_rng((*plan.seed, view))
                heard.append(self.augment.apply(wave, own, self.kinds[view]))
                view += 1
            item[f"views_{number}"] = torch.stack(heard)
        item["labels"] = torch.tensor(int(self.entries[plan.row]))
        item["rows"] = torch.tensor(plan.row)
        return item

    def _cuts(self, row, numbers, draw):
        """Crops of an utterance: some of each length."""
        first, last = (int(edge) for edge in self.spans[row])
        slack = max(0, last - first - self.span)
        first += int(draw.integers(slack + 1))
        last = min(last, first + self.span)
        starts = [
            draw.integers(max(0, last - first - crop) + 1, size=number)
            for crop, number in zip(self.crops, numbers)
        ]
        if self.shared_crops:
            starts = [np.full_like(group, group[:1]) for group in starts]
        if not sum(numbers):
            return [[] for _ in numbers]
        # Only what some view needs is read.
        begin = min(int(start) for group in starts for start in group)
        end = max(
            int(start) + crop
            for group, crop in zip(starts, self.crops)
            for start in group
        )
        wave = read_piece(
            self.files[row], first + begin, min(last, first + end)
        )
        return [
            [
                fit_length(wave[start : start + crop], crop)
                for start in group - begin
            ]
            for crop, group in zip(self.crops, starts)
        ]


def groups(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Groups of views of a batch.

    Arguments
    ---------
    batch : dict
        Items of `ViewDataset`, stacked.

    Returns
    -------
    list of torch.Tensor
        (B, V_i, T_i) each, in their order.

    Example
    -------
    >>> batch = {"labels": torch.zeros(2), "views_0": torch.zeros(2, 2, 9)}
    >>> [group.shape for group in groups(batch)]
    [torch.Size([2, 2, 9])]
    """
    return [batch[name] for name in sorted(batch) if name[:6] == "views_"]
