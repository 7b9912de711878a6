"""CREMA-D: 91 actors, twelve English sentences, six acted emotions.

Cao, Cooper, Keutmann, Gur, Nenkova, Verma, "CREMA-D: crowd-sourced emotional
multimodal actors dataset", IEEE Transactions on Affective Computing 5, 2014.
Licence: Open Database License (ODbL) 1.0, contents under the Database Contents
License. Split: none is official; five folds that share no actor are drawn and
stand in the manifest.
"""

import re
from pathlib import Path
from typing import Union

import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.prepare.labelled import (
    deal_folds,
    named_files,
    read_table,
    write_labelled,
)

logger = get_logger(__name__)

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
SILENT = ("1076_MTI_SAD_XX",)  # in the official release
NAME = re.compile(rf"(\d{{4}})_([A-Z]{{3}})_({'|'.join(EMOTIONS)})_([A-Z]+)")


def prepare_cremad(
    data_folder: Union[str, Path],
    save_file: Union[str, Path],
    sample_rate: int = 16000,
    seed: int = 1234,
) -> None:
    """Write the manifest of all six classes, of files that have sound.

    The emotion is the one that was acted, from the name of the file:
    `AudioWAV/1001_DFA_ANG_XX.wav` is actor, sentence, emotion, intensity.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Holds `AudioWAV` and, for the column sex, `VideoDemographics.csv`.
    save_file : str or pathlib.Path
        The manifest, with the columns emotion, fold, text and intensity.
    sample_rate : int
        Of every file, in Hz.
    seed : int
        Of the folds.

    Raises
    ------
    BadInputError
        If the layout is another one or a file cannot be used.
    """
    rows = []
    example = "1001_DFA_ANG_XX.wav"
    for path, match in named_files(
        Path(data_folder) / "AudioWAV", NAME, example
    ):
        if path.stem in SILENT:
            logger.info("%s is left out: it has no sound.", path)
            continue
        actor, text, emotion, intensity = match.groups()
        rows.append(
            {
                "ID": path.stem,
                "wav": str(path),
                "spk_id": actor,
                "emotion": EMOTIONS[emotion],
                "text": text,
                "intensity": intensity,
            }
        )
    table = pd.DataFrame(rows)
    table["fold"] = deal_folds(table["emotion"], table["spk_id"], seed)
    actors = Path(data_folder) / "VideoDemographics.csv"
    if actors.is_file():
        advice = "Give the file of the official release, or none."
        sexes = read_table(actors, ("ActorID", "Sex"), advice)
        sexes = sexes.set_index("ActorID")["Sex"].str.lower()
        table["sex"] = table["spk_id"].map(sexes).fillna("")
    write_labelled(table, save_file, sample_rate, "CREMA-D")
