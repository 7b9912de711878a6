"""The corpus of a run: the built-in one or any in VoxCeleb layout."""

import json
from pathlib import Path
from typing import Optional, Union

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.trials import read_trials, write_trials
from speechbrain_ssl.prepare.synthetic import make_synthetic_corpus
from speechbrain_ssl.prepare.voxceleb import (
    prepare_voxceleb,
    voxceleb_preparation,
)

SIZES = {"version", "speakers", "sessions", "utterances", "seed"}


def prepare_corpus(
    save_folder: Union[str, Path],
    data_folder: Optional[str] = None,
    test_trials: Optional[str] = None,
    builtin_folder: str = "data/synthetic",
    script: Optional[str] = None,
    split_ratio: tuple[int, int] = (90, 10),
    sample_rate: int = 16000,
    shortest_seconds: float = 0.0,
    check_samples: bool = True,
    bad_files: str = "stop",
    seed: int = 1234,
) -> None:
    """Write train.csv, dev.csv, enrol.csv, test.csv and trials.txt of a corpus.

    Without a data folder the built-in synthetic corpus is made (once) and
    used. Development speakers are disjoint from training speakers; speakers
    of the trial list are in neither.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where the manifests go.
    data_folder : str, optional
        Holds `wav/<speaker>/<session>/<utterance>.wav` or `.flac`.
    test_trials : str, optional
        Trial list, needed with a data folder.
    builtin_folder : str
        Where the built-in corpus is, or will be made.
    script : str, optional
        SpeechBrain's voxceleb_prepare.py or a SpeechBrain checkout; see
        `voxceleb_preparation`.
    split_ratio : tuple of int
        Shares of training and development speakers.
    sample_rate, shortest_seconds, check_samples, bad_files, seed
        See `prepare_voxceleb`; not passed to SpeechBrain's script, which has
        no such checks.

    Raises
    ------
    BadInputError
        If the corpus cannot be used; the message says why.
    """
    if data_folder is None:
        make_synthetic_corpus(builtin_folder)
        data_folder = builtin_folder
        test_trials = test_trials or str(Path(builtin_folder) / "trials.txt")
    if test_trials is None:
        refuse(
            "test_trials",
            [f"data_folder is {data_folder} but no trial list was given"],
            "Add --test_trials=FILE, a list of lines 'label enrol test'.",
        )
    prepare = voxceleb_preparation(script)
    options = {}
    if prepare is prepare_voxceleb:
        options = {
            "sample_rate": sample_rate,
            "shortest_seconds": shortest_seconds,
            "check_samples": check_samples,
            "bad_files": bad_files,
            "seed": seed,
        }
    prepare(
        data_folder,
        str(save_folder),
        str(test_trials),
        splits=["train", "dev", "test"],
        split_ratio=list(split_ratio),
        split_speaker=True,
        random_segment=True,
        **options,
    )
    copy = Path(save_folder) / "trials.txt"
    write_trials(read_trials(test_trials), copy)  # whatever form it has


def is_synthetic(recording: Union[str, Path]) -> bool:
    """Whether a file is of a corpus made here.

    Arguments
    ---------
    recording : str or pathlib.Path
        `<folder>/wav/<speaker>/<session>/<utterance>`.

    Returns
    -------
    bool
    """
    above = Path(recording).absolute().parents
    try:
        found = json.loads((above[3] / "corpus.json").read_bytes())
    except (IndexError, OSError, ValueError):
        return False
    return isinstance(found, dict) and SIZES <= set(found)
