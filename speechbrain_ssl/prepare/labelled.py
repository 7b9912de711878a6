"""Manifests of whole recordings with label columns and folds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import pandas as pd

from speechbrain_ssl.checks import nearest, refuse
from speechbrain_ssl.dataio.files import audio_below
from speechbrain_ssl.dataio.manifest import write_manifest
from speechbrain_ssl.prepare.scan import (
    Checks,
    inspect_all,
    keep_usable,
)

FOLDS = 5

PathLike = Union[str, Path]


def prepare_csv(
    csv: PathLike,
    save_file: PathLike,
    sample_rate: int = 16000,
    label: str = "label",
    data_folder: Optional[PathLike] = None,
    seed: int = 1234,
) -> None:
    """Write the manifest of any table of recordings with a label column.

    Licence: that of your recordings. Split: the column `fold` where there is
    one, with three names or more to leave out in turn, or `train`, `valid`
    and `test`; otherwise `deal_folds`.

    Arguments
    ---------
    csv : str or pathlib.Path
        Columns `wav`, `spk_id` and the label; `ID` and `fold` if wanted.
        Recordings are taken whole: `start` and `stop` are not read.
    save_file : str or pathlib.Path
        The manifest; all columns of the table are kept.
    sample_rate : int
        Of every file, in Hz.
    label : str
        The column that folds are balanced for.
    data_folder : str or pathlib.Path, optional
        Where relative paths start; by default the folder of the table.
    seed : int
        Of the folds.

    Raises
    ------
    BadInputError
        If the table lacks a column or rows, or a file cannot be used.
    """
    advice = "Give a CSV with the columns wav, spk_id and the label."
    table = read_table(csv, ("wav", "spk_id", label), advice)
    root = Path(csv).parent if data_folder is None else Path(data_folder)
    table["wav"] = [str(root / wav) for wav in table["wav"]]
    if "ID" not in table:
        table["ID"] = table["wav"]
    if "fold" not in table:
        table["fold"] = deal_folds(table[label], table["spk_id"], seed)
    write_labelled(table, save_file, sample_rate, str(csv))


def read_table(
    path: PathLike, columns: tuple[str, ...], advice: str
) -> pd.DataFrame:
    """All columns of a CSV as text.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV file.
    columns : tuple of str
        Columns that it has to have.
    advice : str
        What to do about a table that cannot be used.

    Returns
    -------
    pandas.DataFrame
        Text, empty where the table has nothing.

    Raises
    ------
    BadInputError
        If the file is missing or empty or lacks a column.
    """
    present = Path(path).is_file()
    refuse(str(path), [] if present else ["there is no such table"], advice)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, ValueError):
        table = pd.DataFrame()
    problems = [
        f"it has no column '{name}'{nearest(name, map(str, table.columns))}"
        for name in columns
        if name not in table
    ]
    problems += [] if len(table) else ["it has no rows"]
    refuse(str(path), problems, advice)
    return table


def write_labelled(
    rows: pd.DataFrame, save_file: PathLike, sample_rate: int, what: str
) -> None:
    """Add lengths from the headers and write a manifest sorted by ID.

    Arguments
    ---------
    rows : pandas.DataFrame
        ID, wav, spk_id, fold and label columns.
    save_file : str or pathlib.Path
        The manifest; complete or not written at all.
    sample_rate : int
        Of every file, in Hz.
    what : str
        Name of the corpus in messages.

    Raises
    ------
    BadInputError
        If there are no rows, or any file cannot be used.
    """
    advice = "Give the folder of the official layout; see the preparation."
    refuse(what, [] if len(rows) else ["no labelled file was found"], advice)
    audios = keep_usable(
        inspect_all(rows["wav"].tolist(), Checks(sample_rate)),
        f"files of {what}",
        0.0,
        "Repair these files, or take them out of the corpus.",
    )
    frames = [audio.frames for audio in audios]
    rows = rows.assign(start=0, stop=frames)
    rows["duration"] = rows["stop"] / sample_rate
    write_manifest(rows.sort_values("ID"), save_file)


def named_files(
    folder: PathLike, name: re.Pattern, example: str
) -> Iterator[tuple[Path, re.Match]]:
    """Audio files below a folder, and what their names say.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to look, at any depth.
    name : re.Pattern
        Of the path below the folder, with slashes and without suffix.
    example : str
        A good name, for messages.

    Yields
    ------
    (pathlib.Path, re.Match)
        Sorted by path; hidden files are passed over.

    Raises
    ------
    BadInputError
        If there is no such folder, no audio in it, or another name.
    """
    folder = Path(folder)
    files = audio_below(folder)
    inside = [p.relative_to(folder).with_suffix("").as_posix() for p in files]
    matches = [name.fullmatch(path) for path in inside]
    problems = [
        f"'{path}' is not named like '{example}'"
        for path, match in zip(files, matches)
        if match is None
    ]
    if not files:
        problems = ["it has no .wav or .flac files, or is no folder"]
    refuse(str(folder), problems, "Give the folder of the official layout.")
    yield from zip(files, matches)


def deal_folds(
    labels: pd.Series, speakers: pd.Series, seed: int, number: int = FOLDS
) -> list[str]:
    """Folds that share no speaker, with classes as even as that allows.

    Arguments
    ---------
    labels, speakers : pandas.Series
        Of each recording.
    seed : int
        Of the draw.
    number : int
        Folds.

    Returns
    -------
    list of str
        "0", "1" ... for each recording.

    Raises
    ------
    BadInputError
        If there are fewer speakers than folds.

    Example
    -------
    >>> deal_folds(pd.Series(list("xyxy")), pd.Series(list("aabb")), 1, 2)
    ['0', '0', '1', '1']
    """
    count = speakers.nunique()
    problem = f"it has {count} speakers; {number} folds need one each"
    refuse(
        "folds",
        [] if count >= number else [problem],
        "Give more speakers, or a column 'fold'.",
    )
    from sklearn.model_selection import StratifiedGroupKFold  # extra

    folds = pd.Series(index=labels.index, dtype=object)
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    divided = splitter.split(labels, labels, speakers)
    for fold, (_, tested) in enumerate(divided):
        folds.iloc[tested] = str(fold)
    return folds.tolist()
