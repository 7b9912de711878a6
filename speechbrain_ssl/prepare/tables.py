"""Rows of the VoxCeleb manifests, from files found to tables divided."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import COLUMNS, SHORTEST
from speechbrain_ssl.prepare.scan import (
    Audio,
    Checks,
    Utterance,
    inspect_all,
    keep_usable,
    pieces,
)

logger = get_logger(__name__)


class Settings(NamedTuple):
    """Arguments of `prepare_voxceleb`, explained there."""

    roots: list[str]
    trials: Optional[str]
    splits: list[str]
    split_ratio: list[float]
    seg_dur: float
    amp_th: float
    split_speaker: bool
    random_segment: bool
    sample_rate: int
    seed: int
    shortest_seconds: float
    check_samples: bool
    bad_files: str
    most_bad: float
    workers: Optional[int]


def verification_tables(
    utterances: Sequence[Utterance], trials: pd.DataFrame, settings: Settings
) -> dict[str, pd.DataFrame]:
    """Rows of the files that the trials name, one table a column.

    Arguments
    ---------
    utterances : sequence of Utterance
        All files of the corpus.
    trials : pandas.DataFrame
        With the columns enrol and test.
    settings : Settings
        Arguments of the preparation.

    Returns
    -------
    dict
        Manifests `enrol` and `test`, sorted by ID.

    Raises
    ------
    BadInputError
        If a trial names an unknown or faulty file.
    """
    named = _named(utterances, trials, settings.trials)
    both = sorted({item for items in named.values() for item in items})
    found = _inspected(both, settings, of_trials=True)
    tables = {}
    for side, items in named.items():
        rows = []
        for item in items:
            frames = found[item.path].frames
            seconds = frames / settings.sample_rate
            rows.append((item.key, seconds, item.path, 0, frames, item.speaker))
        tables[side] = pd.DataFrame(rows, columns=COLUMNS)
    return tables


def training_tables(
    utterances: Sequence[Utterance], trials: pd.DataFrame, settings: Settings
) -> dict[str, pd.DataFrame]:
    """Rows of train and dev: files or pieces of no speaker of the trials.

    Arguments
    ---------
    utterances : sequence of Utterance
        All files of the corpus, sorted.
    trials : pandas.DataFrame
        With the columns enrol and test.
    settings : Settings
        Arguments of the preparation.

    Returns
    -------
    dict
        Manifests `train` and `dev`.

    Raises
    ------
    BadInputError
        If too many files are faulty, nothing is left, or too little to be
        divided.
    """
    excluded = _speakers(trials)
    items = [item for item in utterances if item.speaker not in excluded]
    left_out = len(utterances) - len(items)
    if len(trials) and not left_out:
        _refuse_other_form(utterances, trials, settings.trials)
        logger.warning("No speaker of %s is in the data.", settings.trials)
    advice = "Give more data or a trial list of fewer speakers."
    problem = f"all {left_out} files belong to speakers of the trial list"
    refuse("training data", [] if items else [problem], advice)
    found = _inspected(items, settings, of_trials=False)
    rows = [
        row
        for item in items
        if item.path in found
        for row in _rows(item, found[item.path], settings)
    ]
    advice = "Lower seg_dur or amp_th, or set random_segment."
    problem = (
        f"none of {len(found)} files has a piece of {settings.seg_dur} s with "
        f"a mean absolute amplitude of {settings.amp_th} or more"
    )
    refuse("training data", [] if rows else [problem], advice)
    table = pd.DataFrame(rows, columns=COLUMNS)
    logger.info(
        "%d files of trial speakers and %d without a piece that is long and "
        "loud enough are left out of training.",
        left_out,
        len(found) - table["wav"].nunique(),
    )
    unit = "spk_id" if settings.split_speaker else "wav"
    return divide(table, unit, settings.split_ratio, settings.seed)


def _speakers(trials: pd.DataFrame) -> set[str]:
    """Speakers of either column of a trial list."""
    names = pd.concat([trials["enrol"], trials["test"]]).unique()
    return {name.partition("/")[0] for name in names}


def _refuse_other_form(utterances, trials, path):
    """Trial speakers whose names stand in another place would be trained."""
    known = {item.speaker for item in utterances}
    names = pd.concat([trials["enrol"], trials["test"]]).unique()
    wrong = [name for name in names if known.intersection(name.split("/")[1:])]
    refuse(
        str(path),
        [f"'{name}' does not begin with the speaker" for name in wrong],
        "Names are SPEAKER/SESSION/UTTERANCE, without the folders above.",
    )


def _named(
    utterances: Sequence[Utterance], trials: pd.DataFrame, path: str
) -> dict[str, list[Utterance]]:
    """Utterances of each column of the trial list, sorted, without repeats."""
    speakers = _speakers(trials)
    known = [item for item in utterances if item.speaker in speakers]
    by_name = {item.key: item for item in known}
    by_name.update((item.key + Path(item.path).suffix, item) for item in known)
    named, unknown = {}, set()
    for side in ("enrol", "test"):
        items = {
            name: by_name.get(name) or by_name.get(os.path.splitext(name)[0])
            for name in trials[side].unique()
        }
        unknown |= {name for name, item in items.items() if item is None}
        named[side] = sorted(set(items.values()) - {None})
    refuse(
        path,
        [f"there is no '{name}' below wav" for name in sorted(unknown)],
        "A trial names SPEAKER/SESSION/UTTERANCE.wav; add the files, or the "
        "data_folder that holds them, or remove the trials.",
    )
    return named


def _inspected(
    items: Sequence[Utterance], settings: Settings, of_trials: bool
) -> dict[str, Audio]:
    """What the usable files hold, by path."""
    measured = settings.amp_th > 0 and not settings.random_segment
    checks = Checks(
        settings.sample_rate,
        min(SHORTEST, settings.shortest_seconds)
        if of_trials
        else settings.shortest_seconds,
        settings.check_samples,
        settings.seg_dur if measured and not of_trials else None,
    )
    return usable(items, checks, settings, of_trials)


def usable(
    items: Sequence[Any], checks: Checks, settings: Any, of_trials: bool
) -> dict[str, Audio]:
    """What the files without fault hold, by path.

    Arguments
    ---------
    items : sequence
        Files with a `path`.
    checks : Checks
        What to look at.
    settings : object
        With `bad_files`, `most_bad` and `workers` of a preparation.
    of_trials : bool
        Whether every faulty file stops, rather than too many.

    Returns
    -------
    dict
        Path to Audio.

    Raises
    ------
    BadInputError
        If too many files are faulty.
    """
    paths = [item.path for item in items]
    audios = inspect_all(paths, checks, settings.workers)
    if of_trials:
        what, most_bad = "files of trials", 0.0
        advice = "Repair these files or remove their trials."
    else:
        what = "training files"
        most_bad = settings.most_bad if settings.bad_files == "stop" else 1.0
        advice = "Repair or remove these files, or set bad_files to 'skip'."
    kept = keep_usable(audios, what, most_bad, advice)
    return {audio.path: audio for audio in kept}


def _rows(item: Utterance, audio: Audio, settings: Settings) -> list[tuple]:
    """Training rows of one file: itself, or its pieces that are loud enough."""
    name = f"{item.speaker}--{item.session}--{item.name}"
    seconds = audio.frames / settings.sample_rate
    if settings.random_segment:
        return [(name, seconds, item.path, 0, audio.frames, item.speaker)]
    limits = pieces(audio.frames, settings.sample_rate, settings.seg_dur)
    levels = audio.levels or [np.inf] * len(limits)
    return [
        (f"{name}_{label}", seconds, item.path, start, stop, item.speaker)
        for (label, start, stop), level in zip(limits, levels)
        if level >= settings.amp_th
    ]


def divide(
    table: pd.DataFrame, unit: str, split_ratio: Sequence[float], seed: int
) -> dict[str, pd.DataFrame]:
    """Train and dev rows that share no file, or no speaker.

    Arguments
    ---------
    table : pandas.DataFrame
        Manifest rows.
    unit : str
        Column whose values stay together: `spk_id` or `wav`.
    split_ratio : sequence of two float
        Shares of train and dev.
    seed : int
        Of the draw.

    Returns
    -------
    dict
        Manifests `train` and `dev`.

    Raises
    ------
    BadInputError
        If there is one value for two shares.
    """
    names = table[unit].unique()
    train, dev = split_ratio
    count = round(len(names) * dev / (train + dev))
    if train and dev:
        what = "speaker" if unit == "spk_id" else "file"
        problem = f"{len(names)} {what} is left for train and dev"
        advice = "Give at least two, or set split_ratio to [100, 0]."
        refuse("training data", [] if len(names) > 1 else [problem], advice)
        count = min(max(count, 1), len(names) - 1)
    drawn = np.random.default_rng(seed).permutation(len(names))
    in_dev = table[unit].isin(names[drawn[:count]])
    return {"train": table[~in_dev], "dev": table[in_dev]}
