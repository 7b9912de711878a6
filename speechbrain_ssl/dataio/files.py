"""Output files that are complete or absent; input files that are found."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, Union

from speechbrain_ssl.checks import refuse

SUFFIXES = (".wav", ".flac")
BEFORE = ".before"  # where `as_before` keeps files


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


@contextmanager
def as_before(
    folder: Union[str, Path], patterns: Sequence[str]
) -> Iterator[None]:
    """Files of a folder as they were, should the block raise.

    They are copied to `.before` in it until the block ends; what a kill left
    there is put back first.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where the files are.
    patterns : sequence of str
        As for `pathlib.Path.glob`; files that the block adds to them go.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> _ = (folder / "a.csv").write_text("old")
    >>> try:
    ...     with as_before(folder, ["*.csv"]):
    ...         _ = (folder / "a.csv").write_text("new")
    ...         raise ValueError
    ... except ValueError:
    ...     print((folder / "a.csv").read_text())
    old
    """
    folder = Path(folder)
    aside, partial = folder / BEFORE, folder / f"{BEFORE}.part"
    _put_back(folder, patterns)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in _matching(folder, patterns):
        copy = partial / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    partial.rename(aside)
    try:
        yield
    except BaseException:
        _put_back(folder, patterns)
        raise
    _forget(aside)


def _put_back(folder, patterns):
    aside = folder / BEFORE
    if not aside.is_dir():
        return
    for path in _matching(folder, patterns):
        if not (aside / path.relative_to(folder)).exists():
            path.unlink()
    for copy in _matching(aside, patterns):
        path = folder / copy.relative_to(aside)
        with replaced_when_done(path) as temporary:
            shutil.copy2(copy, temporary)
    _forget(aside)


def _forget(aside):
    """Remove a folder that a kill must not leave with a part of its files."""
    done = aside.with_name(f"{BEFORE}.part")
    shutil.rmtree(done, ignore_errors=True)
    aside.rename(done)
    shutil.rmtree(done)


def _matching(folder, patterns):
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


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
    """Visible audio files of a folder at any depth, sorted.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to look.
    suffixes : collection of str
        Of the files, in lower case; by default WAV and FLAC.

    Returns
    -------
    list of pathlib.Path
        See `files_below`; none if there is no such folder.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> _ = folder.ensure("a", "b.WAV"), folder.ensure("c.txt")
    >>> [path.name for path in audio_below(folder)]
    ['b.WAV']
    """
    found = files_below(folder) if os.path.isdir(folder) else ()
    paths = (Path(entry.path) for _, entry in found)
    return sorted(path for path in paths if path.suffix.lower() in suffixes)


def files_below(
    folder: Union[str, Path], deepest: Optional[int] = None
) -> Iterator[tuple[tuple[str, ...], os.DirEntry]]:
    """Files of a folder and of those in it, also linked ones; none hidden.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to look.
    deepest : int, optional
        Most names between the folder and a file, the file's included.

    Yields
    ------
    tuple of str
        Names below the folder, the file's last.
    os.DirEntry
        The file; a link that leads back to a folder above it is none.

    Raises
    ------
    OSError
        If a folder is missing or may not be read.
    BadInputError
        If a name is not UTF-8.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> _ = folder.ensure("a", "b.wav"), folder.ensure(".c", "d.wav")
    >>> [names for names, _ in files_below(folder)]
    [('a', 'b.wav')]
    """
    return _below(str(folder), (os.path.realpath(folder),), (), deepest)


def _check_name(name, folder):
    """Refuse a name that no manifest could hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        problem = f"the name {ascii(name)} in it is not UTF-8"
        refuse(folder, [problem], "Rename it.")


def _below(folder, above, names, deepest):
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = (*names, entry.name)
            if entry.name.startswith("."):
                continue
            if not entry.name.isascii():
                _check_name(entry.name, folder)
            if not entry.is_dir():
                yield inner, entry
            elif deepest is None or len(inner) < deepest:
                place = os.path.join(above[-1], entry.name)
                if entry.is_symlink():
                    place = os.path.realpath(entry.path)
                if place not in above:  # else a circle
                    yield from _below(
                        entry.path, (*above, place), inner, deepest
                    )
