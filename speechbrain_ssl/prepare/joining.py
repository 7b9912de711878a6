"""Short recordings joined into longer ones, written once as audio files."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import soundfile

from speechbrain_ssl.dataio.audio import read_piece
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.prepare.scan import for_each


class Joined(NamedTuple):
    """A file that is, or will be, several recordings one after the other."""

    path: str
    parts: tuple[tuple[str, int], ...]  # path and samples of each


def groups_to_join(samples: Sequence[int], least: int) -> list[list[int]]:
    """Recordings that become one, each of at least `least` samples.

    Short recordings are gathered in their order, long ones stay alone. What
    is left at the end goes to the group before it; it is a short group of its
    own when there is none.

    Arguments
    ---------
    samples : sequence of int
        Lengths.
    least : int
        Samples; recordings of this length are long.

    Returns
    -------
    list of list of int
        Positions in `samples`, each in one group.

    Example
    -------
    >>> groups_to_join([2, 9, 4, 3, 1], least=5)
    [[1], [0, 2, 3, 4]]
    """
    groups, short, total = [], [], 0
    for position, length in enumerate(samples):
        if length >= least:
            groups.append([position])
            continue
        short.append(position)
        total += length
        if total >= least:
            groups.append(short)
            short, total = [], 0
    if short and groups:
        groups[-1] = groups[-1] + short
    elif short:
        groups.append(short)
    return groups


def joined_path(folder: Path, name: str, versions: Sequence[str]) -> str:
    """Name of a joined file that no other content will have.

    Arguments
    ---------
    folder : pathlib.Path
        Where joined files are.
    name : str
        What it is called, may have folders.
    versions : sequence of str
        Name, size and time of change of each of its recordings.

    Returns
    -------
    str
    """
    digest = hashlib.sha256("\n".join(versions).encode()).hexdigest()[:12]
    return str(folder / f"{name}_{digest}.flac")


def write_joined(
    files: Sequence[Joined], sample_rate: int, workers: Optional[int] = None
) -> None:
    """Write the files that are not there yet, each complete or not at all.

    Arguments
    ---------
    files : sequence of Joined
        Mono FLAC files of 16 bits.
    sample_rate : int
        Hz.
    workers : int, optional
        See `for_each`.

    Raises
    ------
    BadInputError
        If a recording cannot be read to its end.
    """
    missing = [file for file in files if not Path(file.path).is_file()]
    write = partial(_write, sample_rate=sample_rate)
    for_each(write, missing, workers, "Joining audio")


def _write(file: Joined, sample_rate: int) -> None:
    waves = [read_piece(path, 0, samples) for path, samples in file.parts]
    wave = np.concatenate(waves) * 2**15  # exact for 16-bit recordings
    wave = np.rint(wave).clip(-(2**15), 2**15 - 1).astype("int16")
    with replaced_when_done(file.path) as temporary:
        soundfile.write(temporary, wave, sample_rate, subtype="PCM_16")
