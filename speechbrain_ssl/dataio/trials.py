"""Trial lists: pairs of utterances, labelled same speaker or not."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import numpy as np
import pandas as pd
from numpy.random import Generator

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.dataio.manifest import identity_of

COLUMNS = ("target", "enrol", "test")
FORM = "a trial is 'label enrol test'"
ADVICE = "Regenerate the list or correct these lines."
UNKNOWN, AMBIGUOUS = -1, -2  # in place of a row number
AUDIO = re.compile(r"\.(wav|flac)$", re.IGNORECASE)


def read_trials(path: Union[str, Path]) -> pd.DataFrame:
    """Trials of a VoxCeleb list: lines of `label enrol test`.

    Columns are separated by spaces or tabs, label 1 marks a target trial and
    0 a nontarget trial, blank lines are skipped. Repeated trials are kept.

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
    trials = _read_quickly(path)
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
    columns = [trials[name] for name in COLUMNS]
    lines = (f"{label:d} {one} {two}\n" for label, one, two in zip(*columns))
    with replaced_when_done(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)


def resolve_trials(
    trials: pd.DataFrame, ids: Sequence[str], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the two utterances of every trial.

    A name is looked up as it is written; where that fails, a trailing `.wav`
    or `.flac` is left out on both sides. Folders are compared as well.

    Arguments
    ---------
    trials : pandas.DataFrame
        With the columns target, enrol and test.
    ids : sequence of str
        Names of the utterances at hand, each once.
    where : str
        What the names belong to, for messages, e.g. the manifest's path.

    Returns
    -------
    enrol_rows, test_rows : numpy.ndarray, int64, shape (trials,)
        Positions in `ids`.

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
    known = pd.Index(list(ids), dtype=object)
    repeated = known[known.duplicated()].unique()
    problems = [f"the utterance '{name}' occurs twice" for name in repeated]
    refuse(where, problems, "Give every utterance a name of its own.")
    enrol = _positions(trials["enrol"], known)
    test = _positions(trials["test"], known)
    if min(enrol.min(initial=0), test.min(initial=0)) < 0:
        problems = _unresolved(trials, enrol, test, len(known))
        refuse(where, problems, "Add these utterances or correct the list.")
    return enrol, test


def make_trials(
    rows: pd.DataFrame, seed: int, targets: int = 1000, nontargets: int = 3000
) -> pd.DataFrame:
    """Validation trials from a labelled manifest, the same for the same seed.

    Speakers take turns, so that they are as evenly used as the rows allow. A
    speaker's target trials join two sessions (folders) where there are any,
    then two files, then two pieces of one file. No trial occurs twice, in
    either order. The list is shorter than asked for when the rows allow no
    more trials. Not a benchmark: sessions and speakers are those of the rows.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows; `spk_id` is read.
    seed : int
        Of the random choice.
    targets, nontargets : int
        Trials of each kind, at least 1.

    Returns
    -------
    pandas.DataFrame
        Columns as from `read_trials`, named by the rows' `ID`; target trials
        come first.

    Raises
    ------
    BadInputError
        If there are fewer than two speakers, no speaker with two rows, or a
        number of trials below 1.

    Example
    -------
    >>> names = ["a/1/x", "a/2/y", "b/1/z"]
    >>> rows = pd.DataFrame({"ID": names, "wav": names, "spk_id": list("aab")})
    >>> make_trials(rows, seed=0)["target"].tolist()
    [1, 0, 0]
    """
    sizes = rows["spk_id"].value_counts()
    problems = []
    if len(sizes) < 2:
        problems.append(f"{len(sizes)} of the 2 speakers needed are there")
    if not (sizes > 1).any():
        problems.append("no speaker has the two rows a target trial needs")
    if min(targets, nontargets) < 1:
        given = f"targets={targets}, nontargets={nontargets}"
        problems.append(f"{given} was asked for; each is at least 1")
    advice = "Give more speakers or rows (`halve` makes two of one) or a list."
    refuse("validation trials", problems, advice)
    generator = np.random.default_rng(seed)
    rows = _taking_turns(rows, generator)
    pairs = [
        _target_pairs(rows, generator, targets),
        _nontarget_pairs(rows, nontargets),
    ]
    names = rows["ID"].astype(str).to_numpy(dtype=object)
    enrol, test = np.concatenate(pairs, axis=1)
    labels = np.repeat(np.array([1, 0]), [pair.shape[1] for pair in pairs])
    return _as_trials(labels, names[enrol], names[test])


def _read_quickly(path: Path) -> Union[pd.DataFrame, None]:
    """Trials of a faultless file, None where a line needs a closer look."""
    try:
        columns = pd.read_csv(
            path,
            sep=r"\s+",
            names=[*COLUMNS, "surplus"],
            dtype=str,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except ValueError:  # of the parser or the decoder
        return None
    labels, surplus = columns["target"], columns.pop("surplus")
    faulty = columns.isna().any(axis=None) or surplus.notna().any()
    if faulty or not labels.isin(["0", "1"]).all():
        return None
    return _as_trials(labels == "1", columns["enrol"], columns["test"])


def _read_line_by_line(path: Path) -> pd.DataFrame:
    """Trials read the plain way, which can name every faulty line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        refuse(str(path), [f"it is not text in UTF-8 ({error.reason})"], ADVICE)
    trials, problems = [], []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        has = f"{path.name} line {number} has"
        if len(columns) not in (0, len(COLUMNS)):
            given = f"{len(columns)} columns ('{' '.join(columns)}')"
            problems.append(f"{has} {given}; {FORM}")
        elif columns and columns[0] not in ("0", "1"):
            problems.append(f"{has} the label '{columns[0]}'; it is 1 or 0")
        elif columns:
            trials.append(columns)
    refuse(str(path), problems, ADVICE)
    labels, enrol, test = zip(*trials) if trials else ((), (), ())
    return _as_trials(np.array(labels, dtype=object) == "1", enrol, test)


def _as_trials(
    labels: Sequence[int], enrol: Sequence[str], test: Sequence[str]
) -> pd.DataFrame:
    trials = pd.DataFrame(dict(zip(COLUMNS, (labels, enrol, test))))
    return trials.astype({"target": "int64", "enrol": str, "test": str})


def _positions(names: pd.Series, known: pd.Index) -> np.ndarray:
    """Position of each name in `known`; UNKNOWN or AMBIGUOUS without one."""
    found = known.get_indexer(pd.Index(names, dtype=object))
    missing = np.flatnonzero(found < 0)
    if len(missing):
        stems: dict[str, int] = {}
        for position, name in enumerate(known):
            stem = AUDIO.sub("", name)
            stems[stem] = AMBIGUOUS if stem in stems else position
        codes, unique = pd.factorize(names.iloc[missing])
        close = [stems.get(AUDIO.sub("", name), UNKNOWN) for name in unique]
        found[missing] = np.array(close)[codes]
    return found.astype("int64")


def _unresolved(
    trials: pd.DataFrame, enrol: np.ndarray, test: np.ndarray, known: int
) -> list[str]:
    """One sentence for each utterance without a row, in the trials' order."""
    unknown = f"is not among the {known} utterances"
    ambiguous = "fits several utterances but for '.wav' or '.flac'"
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


def _taking_turns(rows: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    """Rows shuffled so that speakers alternate, and sessions within each.

    Any leading part of the result covers as many speakers as it can, and of
    each speaker as many sessions as it can.
    """
    rows = rows[["ID"]].assign(
        speaker=pd.factorize(rows["spk_id"])[0],
        session=pd.factorize(identity_of(rows, "session"))[0],
        file=pd.factorize(rows["wav"])[0],
    )
    rows = rows.iloc[generator.permutation(len(rows))]
    for group in (["speaker", "session"], ["speaker"]):
        turns = rows.groupby(group).cumcount().to_numpy()
        rows = rows.iloc[np.argsort(turns, kind="stable")]
    return rows


def _in_turns(groups: np.ndarray, most: int) -> np.ndarray:
    """Positions of the first `most` items when the groups take turns."""
    turns = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    return np.argsort(turns, kind="stable")[:most]


def _target_pairs(
    rows: pd.DataFrame, generator: Generator, targets: int
) -> np.ndarray:
    """Positions of two rows of one speaker, (2, targets) or fewer."""
    members = rows.groupby("speaker").indices.values()
    members = [own for own in members if len(own) > 1]
    sizes = np.array([len(own) for own in members])
    most = 32  # rows of a speaker: all pairs of a large corpus are too many
    enough = min(16 * targets, (sizes**2).sum())
    while (np.minimum(sizes, most) ** 2).sum() < enough:
        most *= 2
    members = [own[:most] for own in members]
    pairs = [own[np.stack(np.triu_indices(len(own), 1))] for own in members]
    pairs = np.concatenate(pairs, axis=1)
    pairs = pairs[:, generator.permutation(pairs.shape[1])]
    speaker, session, file = (
        rows[name].to_numpy()[pairs] for name in ("speaker", "session", "file")
    )
    alike = 1 * (session[0] == session[1]) + (file[0] == file[1])
    order = np.argsort(alike, kind="stable")
    return pairs[:, order[_in_turns(speaker[0][order], targets)]]


def _nontarget_pairs(rows: pd.DataFrame, nontargets: int) -> np.ndarray:
    """Positions of two rows of two speakers, (2, nontargets) or fewer."""
    speaker = rows["speaker"].to_numpy()[: 4 * nontargets]
    positions = np.arange(len(speaker))
    chosen, found = [], 0
    # Each row with the one `step` further on: every pair is met once.
    for step in range(1, len(speaker)):
        near = np.stack([positions[:-step], positions[step:]])
        chosen.append(near[:, speaker[near[0]] != speaker[near[1]]])
        found += chosen[-1].shape[1]
        if found >= 10 * nontargets:
            break
    pairs = np.concatenate(chosen, axis=1)
    low, high = np.sort(speaker[pairs], axis=0)
    return pairs[:, _in_turns(low * len(rows) + high, nontargets)]
