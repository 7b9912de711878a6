"""Manifests: one row per utterance or piece, in SpeechBrain's VoxCeleb schema."""

from collections.abc import Iterable
from pathlib import Path
from typing import Union

import numpy as np
import pandas as pd
import soundfile

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")
SHORTEST = 0.1  # seconds, below which an encoder may lack frames
RATES = 100  # files whose sample rate is looked up
RECORDING = ["ID", "wav", "start", "stop", "spk_id"]  # what tells rows apart
IDENTITIES = ("speaker", "session", "utterance")


def read_manifest(path: Union[str, Path]) -> pd.DataFrame:
    """Rows of a CSV with the columns of SpeechBrain's VoxCeleb preparation.

    Further columns are kept. `start` and `stop` are samples, `duration` is
    that of the whole file in seconds.

    Arguments
    ---------
    path : str or pathlib.Path
        CSV file with at least the columns ID, duration, wav, start, stop and
        spk_id.

    Returns
    -------
    pandas.DataFrame
        `start` and `stop` as int64, `duration` as float, the rest as str.

    Raises
    ------
    BadInputError
        If the file is missing or empty, lacks a column, repeats an ID or has
        a row whose piece is empty.
    """
    path = Path(path)
    advice = "Run the preparation again or give another manifest."
    if not path.is_file():
        refuse(str(path), ["there is no such manifest"], advice)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame()
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        found = ", ".join(map(str, rows.columns)) or "none"
        problem = f"columns {', '.join(missing)} are missing; found: {found}"
        refuse(str(path), [problem], advice)
    refuse(str(path), [] if len(rows) else ["it has no rows"], advice)
    for name in ("start", "stop", "duration"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    faulty = ~(rows["stop"] > rows["start"]) | ~(rows["start"] >= 0)
    problems = [
        f"line {index + 2} ('{rows.at[index, 'ID']}') has no valid start < stop"
        for index in rows.index[faulty]
    ]
    problems += [
        f"line {index + 2} repeats the ID '{rows.at[index, 'ID']}'"
        for index in rows.index[rows["ID"].duplicated()]
    ]
    refuse(str(path), problems, advice)
    return rows.astype({"start": "int64", "stop": "int64", "duration": float})


def write_manifest(rows: pd.DataFrame, path: Union[str, Path]) -> None:
    """Write a manifest, complete or not at all.

    Arguments
    ---------
    rows : pandas.DataFrame
        At least the columns of `COLUMNS`; they are written first.
    path : str or pathlib.Path
        The CSV file.
    """
    others = [name for name in rows.columns if name not in COLUMNS]
    with replaced_when_done(path) as temporary:
        rows[[*COLUMNS, *others]].to_csv(temporary, index=False)


def identity_of(rows: pd.DataFrame, identity: str) -> pd.Series:
    """Name of what each row counts as: its speaker, session or utterance.

    `speaker` needs labels. `session` is the column of that name
    or else the folder of the file (a video in VoxCeleb, a chapter in
    LibriSpeech) and `utterance` the file itself;
    neither reads `spk_id`.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    identity : str
        One of `IDENTITIES`.

    Returns
    -------
    pandas.Series
        One name a row.

    Raises
    ------
    BadInputError
        If `identity` is none of the three.
    """
    if identity == "speaker":
        return rows["spk_id"]
    if identity == "session":
        if "session" in rows.columns:
            return rows["session"]
        folders = rows["wav"].str.replace("\\", "/", regex=False)
        return folders.str.rpartition("/")[0]
    if identity == "utterance":
        return rows["wav"]
    refuse(
        "identity",
        [f"'{identity}' was given; it is one of {', '.join(IDENTITIES)}"],
        "Set `identity` in the YAML.",
    )


def check_rate(rows: pd.DataFrame, sample_rate: int, name: str) -> None:
    """Refuse recordings of another sample rate than a model's.

    Only the headers of `RATES` files, drawn at random, are read: those of a
    manifest are of one rate as a rule.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    sample_rate : int
        Hz.
    name : str
        Of the manifest, for the message.

    Raises
    ------
    BadInputError
        If one has another rate.
    """
    files = rows["wav"].unique()
    problems = []
    for path in np.random.default_rng(0).permutation(files)[:RATES]:
        try:
            rate = soundfile.info(path).samplerate
        except (soundfile.LibsndfileError, OSError):
            continue  # reading it will say so
        if rate != sample_rate:
            problems.append(f"{path} has {rate} Hz, the model {sample_rate}")
    refuse(name, problems, "Convert the recordings, or use another model.")


def checksum(names: Iterable[str]) -> str:
    """Of a set of utterances, whatever their order and their folder.

    Arguments
    ---------
    names : iterable of str
        The column `ID`.

    Returns
    -------
    str

    Example
    -------
    >>> checksum(["a", "b"]) == checksum(["b", "a"]) != checksum(["a", "c"])
    True
    """
    names = np.array(list(names), dtype=object)
    total = int(pd.util.hash_array(names).sum())
    return f"{len(names)} utterances (checksum {total:x})"
