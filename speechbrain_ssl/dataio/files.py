"""Output files that are either complete or absent."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

SUFFIXES = (".wav", ".flac")


@contextmanager
def replaced_when_done(path: Union[str, Path]) -> Iterator[Path]:
    """Temporary name beside `path` that takes its place after the block.

    A block that raises leaves an earlier file at `path` as it was.

    Arguments
    ---------
    path : str or pathlib.Path
        The final name; its folder is made when missing.

    Yields
    ------
    pathlib.Path
        Where to write; it has the suffix of `path`.

    Raises
    ------
    OSError
        If the folder cannot be made or written.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> with replaced_when_done(f"{folder}/scores.txt") as temporary:
    ...     _ = temporary.write_text("0.5")
    >>> Path(f"{folder}/scores.txt").read_text()
    '0.5'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(content: Any, path: Union[str, Path]) -> None:
    """Write JSON with two-space indentation, complete or not at all.

    Raises
    ------
    ValueError
        If a number is not finite: JSON has no such value.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> write_json({"eer": 0.05}, f"{folder}/metrics.json")
    """
    with replaced_when_done(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def audio_below(
    folder: Union[str, Path], suffixes: Collection[str] = SUFFIXES
) -> list[Path]:
    """Audio files of a folder at any depth, in linked folders as well.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to look.
    suffixes : collection of str
        Of the files, in lower case; by default WAV and FLAC.

    Returns
    -------
    list of pathlib.Path
        Sorted; none if there is no such folder.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> _ = folder.ensure("a", "b.WAV"), folder.ensure("c.txt")
    >>> [path.name for path in audio_below(folder)]
    ['b.WAV']
    """
    found = _below(folder, ()) if os.path.isdir(folder) else ()
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def _below(folder, above):
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _below(entry.path, (*above, real))
            else:
                yield Path(entry.path)
