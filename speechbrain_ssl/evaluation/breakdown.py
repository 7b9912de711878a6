"""Error rates of parts of a trial list: by sex, duration, genre, ..."""

from pathlib import Path
from typing import Optional, Union

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.metrics import Scores, verification_metrics

SECONDS = (2, 4, 8, 16)  # edges of duration groups
MOST_GROUPS = 100  # a column with more is a name, not a property
KEYS = ("ID", "spk_id")


def read_metadata(path: Union[str, Path], rows: pd.DataFrame) -> pd.DataFrame:
    """Manifest rows with the columns of a CSV about utterances or speakers.

    Arguments
    ---------
    path : str or pathlib.Path
        CSV whose column `ID` names utterances or `spk_id` speakers.
    rows : pandas.DataFrame
        Manifest rows.

    Returns
    -------
    pandas.DataFrame
        The rows; a value that is not known is "".

    Raises
    ------
    BadInputError
        If the file is missing, has neither column, says nothing of a row or
        two things of one.
    """
    path, advice = Path(path), "Give a CSV with a column ID or spk_id."
    if not path.is_file():
        refuse(str(path), ["there is no such file"], advice)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    key = next((key for key in KEYS if key in table), None)
    if key is None:
        found = ", ".join(table.columns)
        refuse(str(path), [f"it has the columns {found}"], advice)
    table = table[[key, *(name for name in table if name not in rows)]]
    table = table.drop_duplicates()
    twice = table.loc[table[key].duplicated(), key].unique()
    problems = [f"it has different lines for '{name}'" for name in twice]
    refuse(str(path), problems, "A property of utterances needs a column ID.")
    table = table.set_index(key)
    unknown = rows.loc[~rows[key].isin(table.index), key].unique()
    problems = [f"it says nothing of '{name}'" for name in unknown]
    refuse(str(path), problems, "Add these lines.")
    return rows.join(table, on=key)


def trial_groups(
    column: str,
    enrol: Optional[pd.DataFrame],
    test: pd.DataFrame,
    enrol_rows: np.ndarray,
    test_rows: np.ndarray,
) -> np.ndarray:
    """Group of each trial.

    Durations are those of the shorter side, in steps of `SECONDS`. Otherwise
    it is the value of both sides, or both values where they differ.

    Arguments
    ---------
    column : str
        Of the rows; `duration` needs `seconds` there.
    enrol : pandas.DataFrame or None
        Rows of the enrolment side; None where models have several cuts: the
        test side then decides alone.
    test : pandas.DataFrame
        Rows of the test side.
    enrol_rows, test_rows : numpy.ndarray
        (trials,) rows of each side.

    Returns
    -------
    numpy.ndarray
        (trials,) str.

    Raises
    ------
    BadInputError
        If the column is not there or has too many values.
    """
    sides = [test] if enrol is None else [test, enrol]
    if column == "duration":
        seconds = [side["seconds"].to_numpy() for side in sides]
        shortest = seconds[0][test_rows]
        if enrol is not None:
            shortest = np.minimum(shortest, seconds[1][enrol_rows])
        names = [f"below {SECONDS[0]} s"]
        names += [f"{a} to {b} s" for a, b in zip(SECONDS, SECONDS[1:])]
        names += [f"{SECONDS[-1]} s or more"]
        return np.array(names)[np.digitize(shortest, SECONDS)]
    known = ", ".join(test.columns)
    problem = f"there is no column '{column}'; there are {known}, duration"
    refuse("breakdown", [] if column in test else [problem], "Give metadata.")
    codes, values = pd.factorize(pd.concat([side[column] for side in sides]))
    values = values.astype(str).to_numpy()
    problem = f"'{column}' has {len(values)} values; at most {MOST_GROUPS}"
    few = len(values) <= MOST_GROUPS
    refuse("breakdown", [] if few else [problem], "Choose another column.")
    tested = codes[: len(test)][test_rows]
    if enrol is None:
        return values[tested]
    enrolled = codes[len(test) :][enrol_rows]
    pairs = np.array(
        [
            one if one == two else ", ".join(sorted((one, two)))
            for one in values
            for two in values
        ]
    )
    return pairs[enrolled * len(values) + tested]


def group_table(parts: dict[str, dict]) -> str:
    """Text table of the groups of a breakdown.

    Example
    -------
    >>> print(group_table({"f": {"targets": 2, "nontargets": 0}}))
    f                         EER -      minDCF -      2 + 0
    """
    lines = []
    for name, figures in parts.items():
        rate = f"{100 * figures['eer']:.2f}" if "eer" in figures else "-"
        cost = f"{figures['min_dcf']:.3f}" if "eer" in figures else "-"
        counts = f"{figures['targets']} + {figures['nontargets']}"
        lines.append(f"{name:<25} EER {rate:<6} minDCF {cost:<6} {counts}")
    return "\n".join(lines)


def breakdown(
    scores: Scores, targets: np.ndarray, groups: np.ndarray
) -> dict[str, dict]:
    """Figures of every group of trials.

    Arguments
    ---------
    scores, targets : array, shape (trials,)
        As for `evaluation.metrics.eer`.
    groups : numpy.ndarray
        (trials,) labels.

    Returns
    -------
    dict
        Group to what `verification_metrics` returns; only the numbers of
        trials where one kind is missing.

    Example
    -------
    >>> groups = np.array(["f", "f", "m"])
    >>> found = breakdown(
    ...     np.array([0.9, 0.1, 0.2]), np.array([1, 0, 0]), groups
    ... )
    >>> found["f"]["eer"], found["m"]
    (0.0, {'targets': 0, 'nontargets': 1})
    """
    figures = {}
    for name in np.unique(groups).tolist():
        here = groups == name
        own = int(np.count_nonzero(targets[here]))
        counts = {"targets": own, "nontargets": int(here.sum()) - own}
        if all(counts.values()):
            counts = verification_metrics(scores[here], targets[here])
        figures[name] = counts
    return figures
