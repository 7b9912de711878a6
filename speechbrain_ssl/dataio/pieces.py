"""Pieces of recordings: trials without speaker labels."""

import numpy as np
import pandas as pd

from speechbrain_ssl.checks import refuse

LONG_SECONDS = 4.0  # of a recording whose quarters still tell voices apart


def pieces(rows: pd.DataFrame) -> pd.DataFrame:
    """Quarters of recordings, each recording counted as a speaker.

    Telling recordings apart by their pieces needs no label. Halves are made
    where most recordings last less than `LONG_SECONDS`: pieces far below a
    second give the same error rate for any embedding.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.

    Returns
    -------
    pandas.DataFrame
        Four or two rows for each; `spk_id` is the file.

    Raises
    ------
    BadInputError
        If a row is too short to cut.

    Example
    -------
    >>> rows = pd.DataFrame({"ID": ["x"], "duration": [5.0], "wav": ["x.wav"]})
    >>> pieces(rows.assign(start=0, stop=80000))["ID"].tolist()
    ['x_a_a', 'x_a_b', 'x_b_a', 'x_b_b']
    """
    halves = halve(rows.assign(spk_id=rows["wav"]))
    return (
        halve(halves) if rows["duration"].median() >= LONG_SECONDS else halves
    )


def halve(rows: pd.DataFrame) -> pd.DataFrame:
    """First and second half of every row, as two rows.

    With one utterance a speaker the halves are the only target trials there
    are. They share the recording, so an error rate on them is too low to
    stand for one across sessions; it shows whether training goes forward.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows; `start` and `stop` in samples.

    Returns
    -------
    pandas.DataFrame
        Twice as many rows: a row's ID with `_a`, then with `_b`. An odd
        sample goes to the second half; other columns are as they were.

    Raises
    ------
    BadInputError
        If a row has fewer than two samples.

    Example
    -------
    >>> rows = pd.DataFrame({"ID": ["x"], "start": [10], "stop": [15]})
    >>> halve(rows).values.tolist()
    [['x_a', 10, 12], ['x_b', 12, 15]]
    """
    short = rows["stop"] - rows["start"] < 2
    problems = [
        f"'{name}' has fewer than two samples" for name in rows.loc[short, "ID"]
    ]
    refuse("rows to halve", problems, "Leave these rows out.")
    middle = rows["start"] + (rows["stop"] - rows["start"]) // 2
    first = rows.assign(ID=rows["ID"] + "_a", stop=middle)
    second = rows.assign(ID=rows["ID"] + "_b", start=middle)
    order = np.arange(2 * len(rows)).reshape(2, -1).T.ravel()  # a, b, a, b, ...
    return pd.concat([first, second]).iloc[order].reset_index(drop=True)
