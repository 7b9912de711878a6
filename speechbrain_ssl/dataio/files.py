"""Output files that are either complete or absent."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union


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
