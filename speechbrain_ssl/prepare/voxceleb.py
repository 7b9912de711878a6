"""VoxCeleb 1 and 2: training, development and verification manifests.

Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification
dataset", 2017, and Chung, Nagrani and Zisserman, "VoxCeleb2: deep speaker
recognition", 2018; CC BY 4.0, the videos belong to their owners. Any corpus
of the same layout can be prepared. The rows are those of SpeechBrain's
recipes/VoxCeleb/voxceleb_prepare.py, so files of either are interchangeable.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Union

import pandas as pd
from speechbrain.utils.logger import get_logger
from speechbrain.utils.superpowers import import_from_path

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import write_manifest
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.prepare.outputs import (
    Folder,
    data_folders,
    is_done,
    refuse_unwritable,
    write_together,
    wrong_choices,
)
from speechbrain_ssl.prepare.scan import (
    Utterance,
    find_utterances,
    fingerprint,
)
from speechbrain_ssl.prepare.tables import (
    Settings,
    training_tables,
    verification_tables,
)

FILES = {"train": ["train"], "dev": ["dev"], "test": ["enrol", "test"]}
SCRIPT = "voxceleb_prepare.py"
CHECKOUT = "SPEECHBRAIN_CHECKOUT"  # environment variable

logger = get_logger(__name__)


def prepare_voxceleb(
    data_folder: Union[Folder, Sequence[Folder]],
    save_folder: Folder,
    verification_pairs_file: Optional[Folder],
    splits: Sequence[str] = ("train", "dev", "test"),
    split_ratio: Sequence[float] = (90, 10),
    seg_dur: float = 3.0,
    amp_th: float = 5e-4,
    source: None = None,
    split_speaker: bool = False,
    random_segment: bool = False,
    skip_prep: bool = False,
    *,
    sample_rate: int = 16000,
    seed: int = 1234,
    shortest_seconds: float = 0.0,
    check_samples: bool = False,
    bad_files: str = "stop",
    most_bad: float = 0.01,
    workers: Optional[int] = None,
) -> None:
    """Write train.csv, dev.csv, enrol.csv and test.csv of a VoxCeleb tree.

    Speakers of the trial list are kept out of training, in either column.
    Which rows fall to dev depends on the files, `split_ratio` and `seed`
    alone, not on the order of the file system nor on `splits`. Only headers
    are read unless the amplitude of pieces or `check_samples` needs the
    samples. Nothing is written outside `save_folder`, and there everything
    or nothing; `prepare.json` beside the CSV files records the arguments and
    inputs, and the same preparation is not repeated.

    The positional arguments are SpeechBrain's, the others ours.

    Arguments
    ---------
    data_folder : str, pathlib.Path or sequence of these
        Folders that hold `wav/<speaker>/<session>/<utterance>.{wav,flac}`;
        several roots as a list or separated by commas.
    save_folder : str or pathlib.Path
        Where the manifests go; made when missing.
    verification_pairs_file : str or pathlib.Path, optional
        Trials 'label enrol test' of files below `wav`, with any suffix. None
        when there is nothing to test on nor to exclude.
    splits : sequence of str
        Which of train, dev and test to write.
    split_ratio : sequence of two float
        Shares of train and dev, e.g. [90, 10].
    seg_dur : float
        Length of the training pieces in seconds.
    amp_th : float
        Pieces of a lower mean absolute amplitude (full scale is 1) are
        dropped; 0 keeps all and spares reading the samples.
    source : None
        SpeechBrain unpacks archives into the data folder with it. Here audio
        folders are never written, so anything but None is refused.
    split_speaker : bool
        Whether dev has other speakers than train, rather than other files.
    random_segment : bool
        Whether a row is a whole file (crops are drawn in training) rather
        than a piece.
    skip_prep : bool
        Whether to do nothing at all.
    sample_rate : int
        Of every file, in Hz.
    seed : int
        Of the division into train and dev.
    shortest_seconds : float
        Shorter files are faulty.
    check_samples : bool
        Whether all samples are read to find silent and non-finite files.
    bad_files : str
        "stop" refuses more than a share of `most_bad` faulty training files,
        "skip" leaves out any number. Faulty files of a trial always stop.
    most_bad : float
        Share from 0 to 1.
    workers : int, optional
        Processes for large corpora; None takes all processors.

    Raises
    ------
    BadInputError
        If an argument, the layout, the trial list or too many audio files
        cannot be used, no training data is left, or `save_folder` cannot be
        written.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmpdir")
    >>> for speaker in ("id1", "id2"):
    ...     file = folder.ensure("wav", speaker, "video", "00001.wav")
    ...     soundfile.write(str(file), np.ones(1600), 16000)
    >>> prepare_voxceleb(
    ...     str(folder),
    ...     f"{folder}/manifests",
    ...     None,
    ...     splits=["train", "dev"],
    ...     split_speaker=True,
    ...     random_segment=True,
    ... )
    >>> pd.read_csv(f"{folder}/manifests/dev.csv")["stop"].tolist()
    [1600]
    """
    if skip_prep:
        logger.info("The preparation is skipped, as asked for.")
        return
    settings = Settings(
        roots=data_folders(data_folder),
        trials=verification_pairs_file and str(verification_pairs_file),
        splits=list(splits),
        split_ratio=list(split_ratio),
        seg_dur=seg_dur,
        amp_th=amp_th,
        split_speaker=split_speaker,
        random_segment=random_segment,
        sample_rate=sample_rate,
        seed=seed,
        shortest_seconds=shortest_seconds,
        check_samples=check_samples,
        bad_files=bad_files,
        most_bad=most_bad,
        workers=workers,
    )
    save_folder = Path(save_folder)
    _refuse_settings(settings, source, save_folder)
    utterances = find_utterances(settings.roots)
    trials = _read_trials(settings)
    record = _record(settings, utterances)
    names = _names(settings)
    if is_done(save_folder, [f"{name}.csv" for name in names], record):
        logger.info("%s is already prepared.", save_folder)
        return
    refuse_unwritable(save_folder)
    tables = {}
    if "test" in splits:
        tables.update(verification_tables(utterances, trials, settings))
    if {"train", "dev"} & set(splits):
        tables.update(training_tables(utterances, trials, settings))
    _write({name: tables[name] for name in names}, record, save_folder)


def voxceleb_preparation(
    script: Optional[Folder] = None, beside: Optional[Folder] = None
) -> Callable[..., None]:
    """SpeechBrain's own `prepare_voxceleb` where it is at hand, else ours.

    The first of these is taken: `script`, the checkout that the environment
    variable SPEECHBRAIN_CHECKOUT names, a voxceleb_prepare.py beside the
    running script or in the working directory, `prepare_voxceleb` above.
    Both take the same positional arguments and write the same rows.

    Arguments
    ---------
    script : str or pathlib.Path, optional
        SpeechBrain's voxceleb_prepare.py, or a checkout of SpeechBrain.
    beside : str or pathlib.Path, optional
        Folder to look into in place of that of the running script and the
        working directory.

    Returns
    -------
    callable

    Raises
    ------
    BadInputError
        If the script or checkout named does not exist or holds no
        `prepare_voxceleb`.

    Example
    -------
    >>> voxceleb_preparation(beside=getfixture("tmpdir")).__module__
    'speechbrain_ssl.prepare.voxceleb'
    """
    places = [Path(sys.argv[0]).parent, Path.cwd()]
    places = places if beside is None else [Path(beside)]
    near = [place / SCRIPT for place in places if (place / SCRIPT).is_file()]
    asked = script or os.environ.get(CHECKOUT)
    if not asked and not near:
        return prepare_voxceleb
    path = Path(asked or near[0])
    if path.is_dir():
        path = path / "recipes" / "VoxCeleb" / SCRIPT
    what = "script" if script else CHECKOUT if asked else SCRIPT
    advice = (
        f"Give SpeechBrain's {SCRIPT} or a checkout that holds "
        f"recipes/VoxCeleb/{SCRIPT}, or nothing to use ours."
    )
    if not path.is_file():
        problem = f"'{asked}' was given; there is no file '{path}'"
        refuse(what, [problem], advice)
    module = import_from_path(path)
    if not hasattr(module, "prepare_voxceleb"):
        refuse(what, [f"'{path}' has no prepare_voxceleb"], advice)
    logger.info("VoxCeleb is prepared by %s.", path)
    return module.prepare_voxceleb


def _refuse_settings(
    settings: Settings, source: Any, save_folder: Path
) -> None:
    """Refuse arguments that contradict the signature or each other."""
    s = settings
    shares = dict(zip(("train", "dev"), s.split_ratio))
    fit = len(s.split_ratio) == 2 and min(s.split_ratio) >= 0
    wrong = {
        "data_folder names no root": not s.roots,
        f"splits is {s.splits}; it holds some of {', '.join(FILES)}": (
            not s.splits or not set(s.splits) <= set(FILES)
        ),
        f"seg_dur is {s.seg_dur} s, less than a sample at {s.sample_rate} Hz": (
            s.seg_dur * s.sample_rate < 1
        ),
        "test is among the splits and verification_pairs_file is missing": (
            not s.trials and "test" in s.splits
        ),
        f"verification_pairs_file is '{s.trials}'; there is no such file": (
            s.trials and not Path(s.trials).is_file()
        ),
        f"source is '{source}'; unpack archives by hand and leave it out": (
            source is not None
        ),
        **wrong_choices(s.split_ratio, s.bad_files, s.most_bad),
    }
    for name, share in shares.items():
        problem = f"{name} is among the splits and its split_ratio is {share}"
        wrong[problem] = fit and name in s.splits and share == 0
    saved = save_folder.resolve()
    for root in s.roots:
        problem = f"save_folder is '{save_folder}', among the audio of '{root}'"
        wrong[problem] = (Path(root) / "wav").resolve() in [
            saved,
            *saved.parents,
        ]
    problems = [problem for problem, is_wrong in wrong.items() if is_wrong]
    refuse("prepare_voxceleb", problems, "Change these arguments.")


def _read_trials(settings: Settings) -> pd.DataFrame:
    """Trials with names below wav as written by POSIX; none without a list."""
    if not settings.trials:
        return pd.DataFrame(columns=["enrol", "test"], dtype=str)
    trials = read_trials(settings.trials)
    for side in ("enrol", "test"):
        trials[side] = trials[side].str.replace("\\", "/", regex=False)
    return trials


def _names(settings: Settings) -> list[str]:
    """Manifests of the splits asked for."""
    return [name for split in settings.splits for name in FILES[split]]


def _record(
    settings: Settings, utterances: Sequence[Utterance]
) -> dict[str, Any]:
    """Everything that the manifests depend on."""
    arguments = settings._asdict()
    del arguments["workers"]
    trials = Path(settings.trials).read_bytes() if settings.trials else b""
    return {
        "arguments": arguments,
        "files": fingerprint(utterances),
        "trials": hashlib.sha256(trials).hexdigest(),
    }


def _write(
    tables: dict[str, pd.DataFrame], record: dict[str, Any], save_folder: Path
) -> None:
    """Replace the manifests and their record."""
    writers = {
        f"{name}.csv": partial(write_manifest, table)
        for name, table in tables.items()
    }
    write_together(writers, record, save_folder)
    for name, table in tables.items():
        logger.info(
            "%s: %d rows of %d speakers.",
            save_folder / f"{name}.csv",
            len(table),
            table["spk_id"].nunique(),
        )
