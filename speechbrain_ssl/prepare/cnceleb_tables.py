"""Rows of the CN-Celeb manifests, from files found to tables and cuts."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Optional

import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import COLUMNS
from speechbrain_ssl.prepare.cnceleb_layout import (
    CUTS,
    JOINED,
    TRIALS,
    Layout,
    Recording,
    genre_of,
    read_models,
)
from speechbrain_ssl.prepare.joining import (
    Joined,
    groups_to_join,
    joined_path,
)
from speechbrain_ssl.prepare.scan import Audio, Checks
from speechbrain_ssl.prepare.tables import usable

ENROLMENTS = {"joined": JOINED, "cuts": CUTS}
SEVERAL = "enrolment"  # genre of a file that joins cuts of several

logger = get_logger(__name__)


class Settings(NamedTuple):
    """Arguments of `prepare_cnceleb`, explained there."""

    roots: list[str]
    split_ratio: list[float]
    split_speaker: bool
    join_seconds: float
    joined_folder: str
    shortest_seconds: float
    enrolment: str
    full_corpus: bool
    sample_rate: int
    seed: int
    check_samples: bool
    bad_files: str
    most_bad: float
    workers: Optional[int]


def verification_tables(
    layout: Layout, trials: pd.DataFrame, settings: Settings
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Manifests `enrol` and `test`, and the cuts of each model.

    Arguments
    ---------
    layout : Layout
        Files and lists.
    trials : pandas.DataFrame
        With the columns enrol (a model) and test.
    settings : Settings
        Arguments of the preparation.

    Returns
    -------
    tables : dict
        Manifests with the column `genre`; that of an official enrolment file,
        which joins cuts of any genres, is "enrolment".
    models : pandas.DataFrame
        The columns model and ID, one row a cut.

    Raises
    ------
    BadInputError
        If a list names an unknown model or file, or a file is faulty.
    """
    models = sorted(trials["enrol"].unique())
    cuts = _cuts(layout, models, settings.enrolment)
    tests = sorted(trials["test"].unique())
    needed = dict.fromkeys(cuts["file"], ENROLMENTS[settings.enrolment])
    needed.update(dict.fromkeys(tests, TRIALS))
    problems = [
        f"{place} names '{name}'; there is no such audio file"
        for name, place in needed.items()
        if name not in layout.evaluation
    ]
    refuse("evaluation lists", problems, "Add the files, or correct the lists.")
    items = [layout.evaluation[name] for name in needed]
    checks = Checks(settings.sample_rate, samples=settings.check_samples)
    audios = usable(items, checks, settings, of_trials=True)
    sides = {
        "enrol": zip(cuts["ID"], cuts["file"], cuts["genre"]),
        "test": ((name, name, genre_of(name)) for name in tests),
    }
    tables = {}
    for side, named in sides.items():
        rows = []
        for name, file, genre in named:
            item = layout.evaluation[file]
            frames = audios[item.path].frames
            seconds = frames / settings.sample_rate
            rows.append(
                (name, seconds, item.path, 0, frames, item.speaker, genre)
            )
        table = pd.DataFrame(rows, columns=[*COLUMNS, "genre"])
        tables[side] = table.drop_duplicates("ID")
    return tables, cuts[["model", "ID"]]


def _cuts(
    layout: Layout, models: Sequence[str], enrolment: str
) -> pd.DataFrame:
    """model, ID, file and genre of every cut of the models."""
    place = ENROLMENTS[enrolment]
    files = read_models(layout.lists[place])
    problems = [
        f"{TRIALS} names the model '{model}'; it is not in {place}"
        for model in models
        if model not in files
    ]
    problems += [
        f"{place} gives '{model}' {len(files[model])} files; one is expected"
        for model in files
        if enrolment == "joined" and len(files[model]) > 1
    ]
    refuse("evaluation lists", problems, "Correct these lists.")
    rows = [
        (model, model, name, SEVERAL)
        if enrolment == "joined"
        else (model, name, name, genre_of(name))
        for model in models
        for name in files[model]
    ]
    return pd.DataFrame(rows, columns=["model", "ID", "file", "genre"])


def training_rows(
    layout: Layout, settings: Settings
) -> tuple[pd.DataFrame, list[Joined]]:
    """Rows of train and dev, and the joined files that some of them name.

    Arguments
    ---------
    layout : Layout
        Files, by speaker and genre.
    settings : Settings
        Arguments of the preparation.

    Returns
    -------
    rows : pandas.DataFrame
        Manifest rows with the columns genre and session; a joined file has
        those of its first recording.
    joined : list of Joined
        To be written.

    Raises
    ------
    BadInputError
        If too many files are faulty or no row is left.
    """
    items = [item for part in layout.training.values() for item in part]
    # Joining reads the samples: faults are then named together, and skipped.
    whole = settings.check_samples or settings.join_seconds > 0
    checks = Checks(settings.sample_rate, samples=whole)
    audios = usable(items, checks, settings, of_trials=False)
    items = [item for item in items if item.path in audios]
    least = round(settings.join_seconds * settings.sample_rate)
    rows, joined, short = [], [], 0
    for _, same in groupby(items, lambda item: (item.speaker, item.genre)):
        same = list(same)
        samples = [audios[item.path].frames for item in same]
        for group in groups_to_join(samples, least):
            parts = [same[position] for position in group]
            frames = sum(samples[position] for position in group)
            seconds = frames / settings.sample_rate
            if seconds < settings.shortest_seconds:
                short += 1
                continue
            name, path = parts[0].name, parts[0].path
            if len(parts) > 1:
                file = _joined(parts, audios, settings.joined_folder)
                name, path = f"{name}+{len(parts) - 1}", file.path
                joined.append(file)
            own = parts[0].speaker, parts[0].genre, parts[0].session
            rows.append((name, seconds, path, 0, frames, *own))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "genre", "session"])
    logger.info(
        "%d recordings are joined into %d files; %d rows shorter than %g s are "
        "left out.",
        sum(len(file.parts) for file in joined),
        len(joined),
        short,
        settings.shortest_seconds,
    )
    listed = {
        item.speaker for part in layout.training.values() for item in part
    }
    lost = sorted(listed - set(table["spk_id"]))
    if lost:
        logger.warning(
            "%d of %d speakers have no training row left, e.g. '%s'.",
            len(lost),
            len(listed),
            lost[0],
        )
    problem = f"all {short} are shorter than {settings.shortest_seconds:g} s"
    refuse("training rows", [] if rows else [problem], "Ask for less.")
    return table, joined


def _joined(
    parts: Sequence[Recording], audios: dict[str, Audio], folder: str
) -> Joined:
    """The file that some recordings are to be."""
    versions = [f"{part.name} {part.version}" for part in parts]
    return Joined(
        joined_path(Path(folder), parts[0].name, versions),
        tuple((part.path, audios[part.path].frames) for part in parts),
    )
