"""Work in stages that is not done twice."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

from torch import nn

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import write_json


class Stages:
    """Stages of a folder, each with a record of what went into it.

    A finished stage is skipped. A stage that was begun with other inputs,
    finished or not, is refused: what it left would be mixed up.

    Arguments
    ---------
    folder : str or pathlib.Path
        The record is its `stages.json`.

    Example
    -------
    >>> stages = Stages(getfixture("tmpdir"))
    >>> stages.run("sum", {"terms": [1, 2]}, lambda: print("working"))
    working
    >>> stages.run("sum", {"terms": [1, 2]}, lambda: print("working"))
    """

    def __init__(self, folder: Union[str, Path]):
        self.folder = Path(folder)
        self.path = self.folder / "stages.json"

    def run(
        self, name: str, inputs: dict[str, Any], work: Callable[[], Any]
    ) -> None:
        """Do the work unless it is done.

        Arguments
        ---------
        name : str
            Of the stage.
        inputs : dict
            What its result depends on, for JSON.
        work : callable
            Does it and leaves its outputs in files.

        Raises
        ------
        BadInputError
            If the stage was begun with other inputs.
        """
        record = {}
        if self.path.is_file():
            record = json.loads(self.path.read_text(encoding="utf-8"))
        inputs = json.loads(json.dumps(inputs))
        if name in record:
            before = record[name]["inputs"]
            refuse(
                f"stage '{name}' in {self.folder}",
                [
                    f"it was begun with {key} {before.get(key)}, now it is "
                    f"{inputs.get(key)}"
                    for key in sorted({*before, *inputs})
                    if before.get(key) != inputs.get(key)
                ],
                "Give another --output_folder, put back what changed, or "
                "remove this folder and those of later rounds.",
            )
            if record[name]["done"]:
                return
        record[name] = {"inputs": inputs, "done": False}
        write_json(record, self.path)
        work()
        record[name]["done"] = True
        write_json(record, self.path)


def digest(what: Union[str, Path, nn.Module]) -> str:
    """Short name of a file's bytes or of a module's weights.

    Example
    -------
    >>> digest(nn.Linear(1, 1)) == digest(nn.Linear(1, 1))
    False
    """
    sha = hashlib.sha256()
    if isinstance(what, nn.Module):
        for name, value in what.state_dict().items():
            sha.update(name.encode())
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    else:
        with open(what, "rb") as file:
            while block := file.read(2**20):
                sha.update(block)
    return sha.hexdigest()[:16]
