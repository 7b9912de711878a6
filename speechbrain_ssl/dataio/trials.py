"""Trial lists: pairs of utterances, labelled same speaker or not."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done

COLUMNS = ("target", "enrol", "test")
FORM = "a trial is 'label enrol test'"
FIRST = {"1": 1, "0": 0}  # labels before the names
LAST = {**FIRST, "tgt": 1, "imp": 0, "target": 1, "nontarget": 0}  # behind
ADVICE = "Regenerate the list or correct these lines."
UNKNOWN, AMBIGUOUS = -1, -2  # in place of a row number
AUDIO = re.compile(r"\.(wav|flac|m4a|mp3|ogg|opus|aac)$", re.IGNORECASE)


def read_trials(path: Union[str, Path]) -> pd.DataFrame:
    """Trials of a list in the form of VoxCeleb, SITW or CN-Celeb, or a CSV.

    Lines are `label enrol test` (VoxCeleb1-O/E/H, VoxSRC) with the label 1
    for a target and 0 for a nontarget trial, or `enrol test label` (CN-Celeb,
    and SITW with `tgt` and `imp`), separated by spaces or tabs; blank lines
    are skipped. A file named .csv has a line with the names target (or
    label), enrol (or enroll) and test in any order. Repeated trials are kept.

    Arguments
    ---------
    path : str or pathlib.Path
        Text file in UTF-8.

    Returns
    -------
    pandas.DataFrame
        One row a trial: `target` (int64, 0 or 1), `enrol` and `test` (str).

    Raises
    ------
    BadInputError
        If the file is missing or empty, has a line of another form, or lacks
        target or nontarget trials.

    Example
    -------
    >>> path = f"{getfixture('tmpdir')}/trials.txt"
    >>> _ = Path(path).write_text("1 a.wav b.wav\\n0 a.wav c.wav\\n")
    >>> read_trials(path)["test"].tolist()
    ['b.wav', 'c.wav']
    """
    path = Path(path)
    if not path.is_file():
        refuse(str(path), ["there is no such trial list"], "Check the path.")
    is_csv = path.suffix.lower() == ".csv"
    trials = _read_csv(path) if is_csv else _read_quickly(path)
    if trials is None:
        trials = _read_line_by_line(path)
    if not len(trials):
        refuse(str(path), ["it has no trials"], f"Regenerate it; {FORM}.")
    problems = [
        f"it has no {kind} trials (label {label})"
        for label, kind in enumerate(("nontarget", "target"))
        if label not in trials["target"].values
    ]
    refuse(str(path), problems, "Error rates need trials of both kinds.")
    return trials


def write_trials(trials: pd.DataFrame, path: Union[str, Path]) -> None:
    """Write a list that `read_trials` reads back, complete or not at all.

    Arguments
    ---------
    trials : pandas.DataFrame
        With the columns target, enrol and test.
    path : str or pathlib.Path
        The text file.

    Raises
    ------
    BadInputError
        If a name is empty or contains white space, which separates columns.

    Example
    -------
    >>> path = f"{getfixture('tmpdir')}/trials.txt"
    >>> trials = [(1, "a", "b"), (0, "a", "c")]
    >>> write_trials(pd.DataFrame(trials, columns=COLUMNS), path)
    >>> Path(path).read_text()
    '1 a b\\n0 a c\\n'
    """
    names = pd.concat([trials["enrol"], trials["test"]]).unique()
    faulty = [name for name in names if name.split() != [name]]
    problems = [f"'{name}' is empty or has white space" for name in faulty]
    refuse(str(path), problems, "Rename these utterances.")
    lines = map("%d %s %s\n".__mod__, zip(*(trials[name] for name in COLUMNS)))
    with replaced_when_done(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)


def resolve_trials(
    trials: pd.DataFrame,
    ids: Sequence[str],
    where: str,
    models: Optional[Sequence[str]] = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the two utterances of every trial.

    A name is looked up as it is written; where that fails, a trailing `.wav`,
    `.flac` or other name of an audio format is left out on both sides, and a
    backslash is a slash. Folders are compared as well.

    Arguments
    ---------
    trials : pandas.DataFrame
        With the columns target, enrol and test.
    ids : sequence of str
        Names of the utterances at hand, each once.
    where : str
        What the names belong to, for messages, e.g. the manifest's path.
    models : sequence of str, optional
        Names of enrolment models, where those are what is enrolled.

    Returns
    -------
    enrol_rows, test_rows : numpy.ndarray, int64, shape (trials,)
        Positions in `ids`; those of enrolment in `models` where given.

    Raises
    ------
    BadInputError
        If `ids` repeats a name, or a trial names an utterance that is not
        there or that fits several once the extension is left out.

    Example
    -------
    >>> trials = pd.DataFrame([(1, "a.wav", "b")], columns=COLUMNS)
    >>> resolve_trials(trials, ["b.flac", "a.wav"], "test.csv")
    (array([1]), array([0]))
    """
    known = [pd.Index(list(ids), dtype=object)]
    known.append(known[0] if models is None else pd.Index(list(models)))
    repeated = known[0][known[0].duplicated()].unique()
    problems = [f"the utterance '{name}' occurs twice" for name in repeated]
    refuse(where, problems, "Give every utterance a name of its own.")
    enrol = _positions(trials["enrol"], known[1])
    test = _positions(trials["test"], known[0])
    if min(enrol.min(initial=0), test.min(initial=0)) < 0:
        problems = _unresolved(trials, enrol, test, len(known[0]))
        refuse(where, problems, "Add these utterances or correct the list.")
    return enrol, test


def _read_quickly(path: Path) -> Union[pd.DataFrame, None]:
    """Trials of a faultless file, None where a line needs a closer look."""
    known: dict[str, int] = {}  # equal names are one in memory
    codes = []
    try:
        pieces = pd.read_csv(
            path,
            sep=r"\s+",
            names=[0, 1, 2, "surplus"],
            dtype=object,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            chunksize=1 << 18,
        )
        for piece in pieces:
            surplus = piece.pop("surplus").notna().any()
            if surplus or piece.isna().any(axis=None):
                return None
            new = [
                [known.setdefault(name, len(known)) for name in piece[place]]
                for place in piece
            ]
            codes.append(np.array(new, dtype="int32"))
    except ValueError:  # of the parser or the decoder
        return None
    if not known:
        return None
    names, codes = np.array(list(known), object), np.concatenate(codes, axis=1)
    for place, labels in ((0, FIRST), (2, LAST)):
        target = np.array([labels.get(name, -1) for name in known])
        target = target[codes[place]]
        if target.min() >= 0:
            enrol, test = names[np.delete(codes, place, axis=0)]
            return as_trials(target, enrol, test)
    return None


def _read_csv(path: Path) -> pd.DataFrame:
    """Trials of a table with a line of names."""
    try:
        table = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            header=None,  # a header shorter than the rows is refused
            encoding="utf-8-sig",
        )
    except ValueError as error:
        refuse(str(path), [f"it is no CSV ({error})"], ADVICE)
    table.columns = table.iloc[0]
    table = table.iloc[1:].reset_index(drop=True)
    table = table.rename(columns={"label": "target", "enroll": "enrol"})
    found = ", ".join(map(str, table.columns))
    missing = [name for name in COLUMNS if name not in table]
    problems = [f"no column {', '.join(missing)}; found: {found}"]
    twice = table.columns[table.columns.duplicated()]
    refuse(
        str(path),
        problems * bool(missing) + [f"'{name}' comes twice" for name in twice],
        ADVICE,
    )
    labels = table["target"].map(LAST)
    problems = [
        f"{path.name} line {row + 2} has the label '{label}'; it is 1 or 0"
        for row, label in table["target"][labels.isna()].items()
    ]
    names = pd.concat([table["enrol"], table["test"]]).unique()
    problems += [
        f"the name '{name}' is empty or has white space"
        for name in names
        if name.split() != [name]
    ]
    refuse(str(path), problems, ADVICE)
    return as_trials(labels, table["enrol"], table["test"])


def _read_line_by_line(path: Path) -> pd.DataFrame:
    """Trials read the plain way, which can name every faulty line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        refuse(str(path), [f"it is not text in UTF-8 ({error.reason})"], ADVICE)
    table = [line.split() for line in lines]
    whole = [columns for columns in table if len(columns) == len(COLUMNS)]
    # The order that more of the lines fit is the one meant.
    place, labels, form = 0, FIRST, FORM
    behind = sum(line[2] in LAST for line in whole)
    if behind > sum(line[0] in FIRST for line in whole):
        place, labels, form = 2, LAST, "a trial is 'enrol test label'"
    trials, problems = [], []
    for number, columns in enumerate(table, start=1):
        has = f"{path.name} line {number} has"
        if len(columns) not in (0, len(COLUMNS)):
            given = f"{len(columns)} columns ('{' '.join(columns)}')"
            problems.append(f"{has} {given}; {form}")
        elif columns and columns[place] not in labels:
            given = f"the label '{columns[place]}'"
            problems.append(f"{has} {given}; it is {' or '.join(labels)}")
        elif columns:
            label = labels[columns.pop(place)]
            trials.append([label, *columns])
    refuse(str(path), problems, ADVICE)
    return as_trials(*(zip(*trials) if trials else ((), (), ())))


def as_trials(
    labels: Sequence[int], enrol: Sequence[str], test: Sequence[str]
) -> pd.DataFrame:
    """The table of `read_trials`, one value a trial in each argument."""
    trials = pd.DataFrame(dict(zip(COLUMNS, (labels, enrol, test))))
    return trials.astype({"target": "int64", "enrol": str, "test": str})


def _positions(names: pd.Series, known: pd.Index) -> np.ndarray:
    """Position of each name in `known`; UNKNOWN or AMBIGUOUS without one."""
    found = known.get_indexer(pd.Index(names, dtype=object))
    missing = np.flatnonzero(found < 0)
    if len(missing):
        stems: dict[str, int] = {}
        for position, name in enumerate(known):
            stem = _stem(name)
            stems[stem] = AMBIGUOUS if stem in stems else position
        codes, unique = pd.factorize(names.iloc[missing])
        close = [stems.get(_stem(name), UNKNOWN) for name in unique]
        found[missing] = np.array(close)[codes]
    return found.astype("int64")


def _stem(name: str) -> str:
    """A name below wav without its audio format, as written by POSIX."""
    return AUDIO.sub("", name.replace("\\", "/"))


def _unresolved(
    trials: pd.DataFrame, enrol: np.ndarray, test: np.ndarray, known: int
) -> list[str]:
    """One sentence for each utterance without a row, in the trials' order."""
    unknown = f"is not among the {known} utterances"
    ambiguous = "fits several utterances but for its '.wav' or '.flac'"
    reasons = {UNKNOWN: unknown, AMBIGUOUS: ambiguous}
    found = np.stack([enrol, test], axis=1)
    rows, sides = np.nonzero(found < 0)
    names = trials[["enrol", "test"]].to_numpy()[rows, sides]
    problems = []
    for item in np.flatnonzero(~pd.Series(names).duplicated()):
        row, reason = rows[item], reasons[found[rows[item], sides[item]]]
        trial = " ".join(map(str, trials[list(COLUMNS)].iloc[row]))
        place = f"trial {row + 1}: '{trial}'"
        problems.append(f"'{names[item]}' ({place}) {reason}")
    return problems
