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
from speechbrain_ssl.dataio.manifest import identity_of


class ViewPlan(NamedTuple):
    """Which utterance, and the seed of what is drawn for it.

    Arguments
    ---------
    row : int
        Manifest row.
    seed : tuple of int
        Seed, epoch, visit within the epoch and row.
    """

    row: int
    seed: tuple[int, ...]


class UtteranceSampler(torch.utils.data.Sampler):
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
        needed = batch_size * processes
        problems = []
        if batch_size < 2:
            problems.append(f"batch_size is {batch_size}; 2 or more is needed")
        if len(rows) < needed:
            problems.append(
                f"a step needs {needed} utterances, the corpus has {len(rows)}"
            )
        refuse(
            "batches of utterances",
            problems,
            "Lower batch_size or give more data.",
        )
        self.entries, self.names = pd.factorize(
            identity_of(rows, identity), sort=True
        )
        self.names = list(self.names)
        self.utterances = len(rows)
        self.batch_size = batch_size
        self.per_visit = len(rows) // needed  # steps before one comes again
        self.steps_per_epoch = steps_per_epoch or self.per_visit
        self.seed, self.rank, self.processes = seed, rank, processes
        self.start_at(epoch=1, step=0)

    def start_at(self, epoch: int, step: int) -> None:
        """Say which epoch comes next and how many of its batches are done."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return self.steps_per_epoch - self.step

    def __iter__(self) -> Iterator[list[ViewPlan]]:
        order, last = None, None
        for step in range(self.step, self.steps_per_epoch):
            visit, place = divmod(step, self.per_visit)
            if visit != last:
                key = (self.seed, self.epoch, visit)
                order = np.random.default_rng(key).permutation(self.utterances)
                last = visit
            first = (place * self.processes + self.rank) * self.batch_size
            yield [
                ViewPlan(int(row), (self.seed, self.epoch, visit, int(row)))
                for row in order[first : first + self.batch_size]
            ]


class ViewDataset(torch.utils.data.Dataset):
    """Reads an utterance once and cuts it into views of one or more lengths.

    Starts are uniform and independent, so views may overlap. An utterance
    shorter than a crop is repeated, and all its crops of that length are the
    whole of it. Each view is reverberated and given noise by a draw of its
    own.

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
    clean_views : int
        Views of the first group that are left as they are.
    span_seconds : float
        Longest piece of a file that is read.

    Raises
    ------
    BadInputError
        If an utterance is shorter than the shortest crop, or the groups do
        not fit.

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
        clean_views: int = 0,
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
        refuse("views", problems, "Correct the YAML value.")
        lengths = (rows["stop"] - rows["start"]).to_numpy()
        refuse(
            "training utterances",
            [
                f"{path} has {length} samples; the shortest crop has "
                f"{self.crops[-1]}"
                for path, length in zip(rows["wav"], lengths)
                if length < self.crops[-1]
            ],
            "Shorten the crops, or take these out of the training folder.",
        )
        self.files = rows["wav"].to_numpy()
        self.spans = rows[["start", "stop"]].to_numpy()
        self.entries = entries
        self.augment = augment or Augment()
        self.clean_views = clean_views

    def __getitem__(self, plan: ViewPlan) -> dict[str, torch.Tensor]:
        """Views of one utterance.

        Arguments
        ---------
        plan : ViewPlan
            What to read, and the seed.

        Returns
        -------
        dict
            `views_0` (V_0, T_0), `views_1` ... and `labels`, a scalar.
        """
        generator = np.random.default_rng(plan.seed)
        first, last = (int(edge) for edge in self.spans[plan.row])
        slack = max(0, last - first - self.span)
        first += int(generator.integers(slack + 1))
        last = min(last, first + self.span)
        starts = [
            generator.integers(max(0, last - first - crop) + 1, size=number)
            for crop, number in zip(self.crops, self.views)
        ]
        # Only what some view needs is read.
        begin = min(int(group.min()) for group in starts)
        end = max(
            int(group.max()) + crop for group, crop in zip(starts, self.crops)
        )
        wave = read_piece(
            self.files[plan.row], first + begin, min(last, first + end)
        )
        item, view = {}, 0
        for number, (crop, group) in enumerate(zip(self.crops, starts)):
            cuts = []
            for start in group - begin:
                cut = fit_length(wave[start : start + crop], crop)
                if view >= self.clean_views:
                    own = np.random.default_rng((*plan.seed, view))
                    cut = self.augment.reverberate(cut, own)
                    cut = self.augment.add_noise(cut, own)
                cuts.append(cut)
                view += 1
            item[f"views_{number}"] = torch.stack(cuts)
        item["labels"] = torch.tensor(int(self.entries[plan.row]))
        return item


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
