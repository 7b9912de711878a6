"""Recordings named by files, a folder or a manifest."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import pandas as pd
import soundfile

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import audio_below
from speechbrain_ssl.dataio.manifest import read_manifest

SUFFIXES = {f".{kind.lower()}" for kind in soundfile.available_formats()}
SUFFIXES = (SUFFIXES | {".opus", ".oga", ".aif"}) - {".raw"}
UNREAD = (".m4a", ".aac", ".mp4", ".wma", ".amr")
AUDIO_ADVICE = "Repair or leave out these files."


logger = logging.getLogger(__name__)


class Recording(NamedTuple):
    """A piece of an audio file.

    Arguments
    ---------
    name : str
        Under which its embedding is kept.
    path : str
        Of the file.
    start, stop : int
        Samples at the file's rate; stop -1 is the end.
    """

    name: str
    path: str
    start: int = 0
    stop: int = -1


def find_recordings(
    places: Sequence[Union[str, Path]], data_folder: Optional[str] = None
) -> list[Recording]:
    """Recordings that are named by files, a folder or a manifest.

    Arguments
    ---------
    places : sequence of str or pathlib.Path
        Audio files, or one folder, searched through, or one CSV manifest
        (columns ID, duration, wav, start, stop, spk_id).
    data_folder : str, optional
        Where a manifest's files lie, by default its own folder; a manifest
        that leads elsewhere is refused.

    Returns
    -------
    list of Recording
        Named by path as given, path below the folder, or ID.

    Raises
    ------
    BadInputError
        If nothing is found, a name comes twice or a file cannot be opened.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> soundfile.write(folder / "b.wav", [0.0] * 1600, 16000)
    >>> [recording.name for recording in find_recordings([folder])]
    ['b.wav']
    """
    first = Path(places[0])
    if len(places) == 1 and first.is_dir():
        found = [
            Recording(path.relative_to(first).as_posix(), str(path))
            for path in audio_below(first, SUFFIXES)
            if path.is_file()
        ]
        others = [p for p in first.rglob("*") if p.suffix.lower() in UNREAD]
        if others:
            logger.warning(
                "%d files that soundfile does not read are passed over, such "
                "as %s: convert them",
                len(others),
                min(others),
            )
    elif len(places) == 1 and first.suffix.lower() == ".csv":
        rows = read_manifest(first)
        found = list(_inside(rows, Path(data_folder or first.parent), first))
    else:
        found = [as_recording(place) for place in places]
    what = ", ".join(map(str, places[:3]))
    refuse(what, [] if found else ["no audio files are there"], AUDIO_ADVICE)
    names = pd.Series([recording.name for recording in found])
    problems = [f"{name} comes twice" for name in names[names.duplicated()]]
    for path in dict.fromkeys(recording.path for recording in found):
        try:
            soundfile.info(path)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            problems.append(f"{path} cannot be read: {error}")
    refuse(what, problems, AUDIO_ADVICE)
    return found


def _inside(rows, folder, manifest) -> Iterator[Recording]:
    root = folder.resolve()
    paths = [_below(root, wav) for wav in rows["wav"]]
    refuse(
        str(manifest),
        [
            f"'{wav}' is not below {folder}"
            for wav, path in zip(rows["wav"], paths)
            if root not in path.parents
        ],
        "Give the folder of these recordings with --data-folder.",
    )
    for name, path, start, stop in zip(
        rows["ID"], paths, rows["start"], rows["stop"]
    ):
        yield Recording(name, str(path), start, stop)


def _below(root, wav) -> Path:
    """A path from the root, or from where we are, as preparation writes it."""
    path, here = (root / wav).resolve(), Path(wav).resolve()
    inside = root in here.parents and here.is_file()
    return here if inside and not path.is_file() else path


def as_recording(item: Union[str, Path, Recording]) -> Recording:
    """The whole file when a path is given.

    Example
    -------
    >>> as_recording("a.wav")
    Recording(name='a.wav', path='a.wav', start=0, stop=-1)
    """
    if isinstance(item, Recording):
        return item
    return Recording(str(item), str(item))
