"""What every preparation of a corpus shares: data folders, files, reruns."""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Union

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done, write_json

RECORD = "prepare.json"

Folder = Union[str, Path]


def data_folders(given: Union[Folder, Sequence[Folder]]) -> list[str]:
    """Data folders from one, a list or a comma-separated string.

    Example
    -------
    >>> data_folders("a, b")
    ['a', 'b']
    """
    if isinstance(given, str):
        names = (root.strip() for root in given.split(","))
        return [root for root in names if root]
    if isinstance(given, os.PathLike):
        return [str(given)]
    return [str(root) for root in given]


def wrong_choices(
    split_ratio: Sequence[float], bad_files: str, most_bad: float
) -> dict[str, bool]:
    """Sentence on each argument that preparations share, and whether it holds.

    Example
    -------
    >>> list(wrong_choices([90, 10], "stop", 0.01).values())
    [False, False, False]
    """
    fit = len(split_ratio) == 2 and min(split_ratio) >= 0
    return {
        f"split_ratio is {split_ratio}; it is two shares, e.g. [90, 10]": (
            not fit or sum(split_ratio) == 0
        ),
        f"bad_files is '{bad_files}'; it is 'stop' or 'skip'": (
            bad_files not in ("stop", "skip")
        ),
        f"most_bad is {most_bad}; it is a share from 0 to 1": (
            not 0 <= most_bad <= 1
        ),
    }


def refuse_unwritable(save_folder: Path) -> None:
    """Refuse a folder that cannot be written, before the long work.

    Raises
    ------
    BadInputError
        If it cannot be made or written.
    """
    try:
        save_folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=save_folder).close()
    except OSError as error:
        refuse(
            "save_folder",
            [f"'{save_folder}' cannot be written ({error})"],
            "Give another folder or the right to write there.",
        )


def is_done(
    save_folder: Path, names: Iterable[str], record: dict[str, Any]
) -> bool:
    """Whether the files there were made from the same inputs.

    Arguments
    ---------
    save_folder : pathlib.Path
        Where they are.
    names : iterable of str
        Files of the preparation.
    record : dict
        Everything that they depend on.

    Returns
    -------
    bool
    """
    paths = [save_folder / name for name in [*names, RECORD]]
    if not all(path.is_file() for path in paths):
        return False
    try:
        written = json.loads((save_folder / RECORD).read_bytes())
    except ValueError:
        return False  # not ours; it is replaced
    return written == record


def write_together(
    writers: dict[str, Callable[[Path], None]],
    record: dict[str, Any],
    save_folder: Path,
) -> None:
    """Replace all files of a preparation together, the record last.

    Arguments
    ---------
    writers : dict
        Name of a file to the function that writes it to a path.
    record : dict
        Everything that they depend on; goes to `prepare.json`.
    save_folder : pathlib.Path
        Where they go.
    """
    with ExitStack() as stack:
        record_path = save_folder / RECORD
        new_record = stack.enter_context(replaced_when_done(record_path))
        for name, write in writers.items():
            path = save_folder / name
            write(stack.enter_context(replaced_when_done(path)))
        write_json(record, new_record)
        # An interruption from here on must not pass for a preparation.
        record_path.unlink(missing_ok=True)
