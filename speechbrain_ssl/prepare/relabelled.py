"""Manifests of a corpus that is prepared already, with other labels."""

import shutil
from pathlib import Path
from typing import Union

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done

OTHERS = ("dev.csv", "enrol.csv", "test.csv", "trials.txt")


def prepare_relabelled(
    save_folder: Union[str, Path],
    labelled: Union[str, Path],
    manifests: Union[str, Path],
) -> None:
    """Take the training manifest from one place and the others from another.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        Where the manifests go.
    labelled : str or pathlib.Path
        Becomes train.csv; its `spk_id` is what is learned.
    manifests : str or pathlib.Path
        Folder with dev.csv, enrol.csv, test.csv and trials.txt.

    Raises
    ------
    BadInputError
        If one of these files is missing.
    """
    sources = {"train.csv": Path(labelled)}
    sources.update((name, Path(manifests) / name) for name in OTHERS)
    refuse(
        "manifests",
        [f"there is no {p}" for p in sources.values() if not p.is_file()],
        "Give a labelled manifest and the manifests folder of a run.",
    )
    for name, source in sources.items():
        with replaced_when_done(Path(save_folder) / name) as temporary:
            shutil.copyfile(source, temporary)
