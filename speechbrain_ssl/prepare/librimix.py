"""LibriMix: the clean sources, so that mixtures are made during training.

Cosentino, Pariente, Cornell, Deleforge and Vincent, "LibriMix: an open-source
dataset for generalizable speech separation", 2020, arXiv:2005.11262; speech
of LibriSpeech, CC BY 4.0. The tables read here are those that SpeechBrain's
recipes/LibriMix/prepare_data.py writes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import pandas as pd

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import (
    COLUMNS,
    read_manifest,
    write_manifest,
)
from speechbrain_ssl.dataio.trials import write_trials
from speechbrain_ssl.dataio.validation import make_trials
from speechbrain_ssl.prepare.scan import Checks, inspect_all, keep_usable

SOURCE = re.compile(r"s(\d+)_wav")  # a column
UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+")  # speaker-chapter-number

PathLike = Union[str, Path]


def prepare_librimix_sources(
    csv_files: Union[PathLike, Sequence[PathLike]],
    save_file: PathLike,
    sample_rate: int = 8000,
) -> None:
    """Write a manifest of every clean source that a set of mixtures is of.

    Sources are files named by their mixture, "4446-2271-0000_1624-142933-0000"
    where the first LibriSpeech utterance is source s1 and the second s2. The
    mixture is named by the column ID, or where that is only a number, as
    SpeechBrain writes it, by the files themselves. An utterance found in
    several mixtures is taken once, from the longest file, since LibriMix cuts
    sources to the length of their mixture. Only headers are read.

    A folder holds sources of many speakers here, so the session, a chapter of
    a speaker, is a column of its own.

    Arguments
    ---------
    csv_files : str, pathlib.Path or sequence of these
        Tables with the columns ID, s1_wav, s2_wav and so on; others are not
        read. Give those of one split, e.g. train only.
    save_file : str or pathlib.Path
        The manifest, with the further column `session`.
    sample_rate : int
        Of every file, in Hz.

    Raises
    ------
    BadInputError
        If a table is missing or lacks a column or rows, a mixture's name is
        not of that form or of another number of utterances than sources, or a
        file is missing or faulty.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmpdir")
    >>> table, name = "ID,s1_wav,s2_wav\\n0", "7-1-0000_8-2-0001.wav"
    >>> for source in ("s1", "s2"):
    ...     path = str(folder.ensure(source, name))
    ...     soundfile.write(path, np.ones(800), 8000)
    ...     table += f",{path}"
    >>> folder.join("mixtures.csv").write(table)
    >>> prepare_librimix_sources(
    ...     f"{folder}/mixtures.csv", f"{folder}/sources.csv"
    ... )
    >>> pd.read_csv(f"{folder}/sources.csv")["session"].tolist()
    ['7-1', '8-2']
    """
    if isinstance(csv_files, (str, Path)):
        csv_files = [csv_files]
    sources = pd.concat([_sources(Path(path)) for path in csv_files])
    sources = sources.drop_duplicates(["ID", "wav"])
    checks = Checks(sample_rate)
    audios = inspect_all(sorted(sources["wav"].unique()), checks)
    advice = "Repair these files or remove their mixtures from the tables."
    usable = keep_usable(audios, "sources", most_bad=0.0, advice=advice)
    frames = {audio.path: audio.frames for audio in usable}
    sources["start"] = 0
    sources["stop"] = sources["wav"].map(frames)
    sources["duration"] = sources["stop"] / sample_rate
    sources = sources.sort_values(
        ["ID", "stop", "wav"], ascending=[True, False, True]
    ).drop_duplicates("ID")
    write_manifest(sources[[*COLUMNS, "session"]], save_file)


def _sources(path: Path) -> pd.DataFrame:
    """ID, wav, spk_id and session of every source in one table."""
    table, columns = _read_mixtures(path)
    mixtures = table[["ID", *columns]].itertuples(index=False)
    rows, problems = [], []
    for line, (mixture, *files) in enumerate(mixtures, start=2):
        files = [file for file in files if file]
        utterances = _utterances(mixture, files)
        if utterances is None:
            named = f" ('{files[0]}')" if files else ""
            problems.append(
                f"line {line} has the ID '{mixture}' and {len(files)} source "
                f"files{named}; neither is named like "
                "'4446-2271-0000_1624-142933-0000', one "
                "SPEAKER-CHAPTER-NUMBER a source"
            )
            continue
        for utterance, file in zip(utterances, files):
            speaker, chapter = utterance.groups()
            rows.append((utterance[0], file, speaker, f"{speaker}-{chapter}"))
    refuse(str(path), problems, "Name the mixtures as LibriMix does.")
    return pd.DataFrame(rows, columns=["ID", "wav", "spk_id", "session"])


def _read_mixtures(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A table of mixtures and its columns s1_wav, s2_wav, ... in order."""
    advice = "Give a table of SpeechBrain's LibriMix preparation."
    if not path.is_file():
        refuse(str(path), ["there is no such table"], advice)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        refuse(str(path), [f"it is not a CSV table ({error})"], advice)
    columns = sorted(
        filter(SOURCE.fullmatch, table.columns),
        key=lambda name: int(SOURCE.fullmatch(name)[1]),
    )
    if "ID" not in table.columns or not columns or table.empty:
        found = ", ".join(table.columns)
        problem = (
            f"it has {len(table)} rows and the columns {found}; rows with ID, "
            "s1_wav, s2_wav, ... are expected"
        )
        refuse(str(path), [problem], advice)
    return table, columns


def _utterances(mixture: str, files: Sequence[str]) -> Optional[list[re.Match]]:
    """Utterances of a mixture, from its ID or the name of its files."""
    for name in (mixture, *[Path(file).stem for file in files[:1]]):
        found = [UTTERANCE.fullmatch(part) for part in name.split("_")]
        if all(found) and len(found) == len(files):
            return found
    return None


def prepare_librimix_verification(
    save_folder: PathLike,
    train_csv: PathLike,
    valid_csv: PathLike,
    test_csv: PathLike,
    sample_rate: int = 8000,
    seed: int = 1234,
) -> None:
    """Write train, dev, enrol, test manifests and a trial list of LibriMix.

    The splits of LibriMix share no speaker. Trials are drawn among the clean
    test sources, across chapters of a speaker where there are several; the
    evaluation mixes interferers into them.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where train.csv, dev.csv, enrol.csv, test.csv and trials.txt go.
    train_csv, valid_csv, test_csv : str or pathlib.Path
        Tables of SpeechBrain's LibriMix preparation.
    sample_rate : int
        Hz.
    seed : int
        Of the trials.

    Raises
    ------
    BadInputError
        See `prepare_librimix_sources` and `make_trials`.
    """
    save_folder = Path(save_folder)
    tables = {"train": train_csv, "dev": valid_csv, "test": test_csv}
    for name, table in tables.items():
        path = save_folder / f"{name}.csv"
        prepare_librimix_sources(table, path, sample_rate)
    test = read_manifest(save_folder / "test.csv")
    write_manifest(test, save_folder / "enrol.csv")
    trials = make_trials(test, seed, targets=3000, nontargets=30000)
    write_trials(trials, save_folder / "trials.txt")
