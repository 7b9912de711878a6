"""Files beside a trial list: its scores, and its enrolment models."""

from pathlib import Path
from typing import Union

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.dataio.trials import COLUMNS

LINES = 1 << 20  # written at a time; bounds memory


def write_scores(
    trials: pd.DataFrame, scores: np.ndarray, path: Union[str, Path]
) -> None:
    """Lines of `label enrol test score`, complete or not at all.

    Arguments
    ---------
    trials : pandas.DataFrame
        Columns target, enrol and test.
    scores : numpy.ndarray
        (trials,).
    path : str or pathlib.Path
        The text file.

    Example
    -------
    >>> path = f"{getfixture('tmpdir')}/clean.txt"
    >>> trials = pd.DataFrame([(1, "a", "b")], columns=COLUMNS)
    >>> write_scores(trials, np.array([0.5]), path)
    >>> Path(path).read_text()
    '1 a b 0.500000\\n'
    """
    columns = [trials[name] for name in COLUMNS]
    columns.append(pd.Series(scores))
    with replaced_when_done(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for first in range(0, len(trials), LINES):
                part = slice(first, first + LINES)
                lines = zip(*(column.iloc[part].tolist() for column in columns))
                file.writelines(map("%d %s %s %.6f\n".__mod__, lines))


def read_scores(path: Union[str, Path], trials: pd.DataFrame) -> np.ndarray:
    """Scores of a file of `write_scores`, which must be of these trials.

    Arguments
    ---------
    path : str or pathlib.Path
        The text file.
    trials : pandas.DataFrame
        Columns target, enrol and test, in the same order.

    Returns
    -------
    numpy.ndarray
        (trials,) float64.

    Raises
    ------
    BadInputError
        If it is missing, no score file, or of other trials.
    """
    path, advice = Path(path), "Score this trial list with that model again."
    if not path.is_file():
        refuse(str(path), ["there is no such score file"], advice)
    types = {"target": "int64", "enrol": "category", "test": "category"}
    try:
        table = pd.read_csv(
            path,
            sep=" ",
            names=[*COLUMNS, "score"],
            dtype={**types, "score": "float64"},
            keep_default_na=False,
            low_memory=False,
            quoting=3,
        )
    except ValueError as error:
        refuse(str(path), [f"it is no score file ({error})"], advice)
    if len(table) != len(trials):
        problem = f"it has {len(table)} lines, the list {len(trials)} trials"
        refuse(str(path), [problem], advice)
    differ = np.zeros(len(table), bool)
    for name in COLUMNS:
        kind = "int64" if name == "target" else str
        differ |= table[name].astype(kind).to_numpy() != trials[name].to_numpy()
    places = np.flatnonzero(differ)
    problems = [f"line {place + 1} is of another trial" for place in places]
    refuse(str(path), problems, advice)
    return table["score"].to_numpy()


def read_models(path: Union[str, Path]) -> pd.DataFrame:
    """Enrolment models, one row a cut: a CSV of the columns model and ID.

    A file of another name has lines `model ID`, as the enrolment lists of
    SITW.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    pandas.DataFrame
        Columns model and ID (str).

    Raises
    ------
    BadInputError
        If it is missing, empty, lacks a column or repeats a cut.
    """
    path = Path(path)
    advice = "Give a CSV with the columns model and ID, or lines 'model ID'."
    if not path.is_file():
        refuse(str(path), ["there is no such table of models"], advice)
    try:
        form = {"dtype": str, "keep_default_na": False}
        if path.suffix.lower() != ".csv":
            names = ["model", "ID", "surplus"]
            form.update(sep=r"\s+", names=names, na_values=[""])
        table = pd.read_csv(path, **form)
    except ValueError as error:
        refuse(str(path), [f"it is no CSV ({error})"], advice)
    problems = [
        f"it has no column '{name}'"
        for name in ("model", "ID")
        if name not in table
    ]
    refuse(str(path), problems, advice)
    faulty = table["ID"].isna()
    if "surplus" in table:
        faulty |= table["surplus"].notna()
    table = table[["model", "ID"]]
    problems = [] if len(table) else ["it has no rows"]
    problems += [
        f"line {row + 1} is not 'model ID'" for row in np.flatnonzero(faulty)
    ]
    problems += [
        f"line {row + 2} repeats '{table['ID'][row]}' of its model"
        for row in np.flatnonzero(table.duplicated())
    ]
    refuse(str(path), problems, advice)
    return table
