"""EmoDB: ten German actors, ten sentences, seven acted emotions.

Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss, "A database of German emotional
speech", Interspeech 2005. Licence: CC0 1.0 as released by audeering/datasets.
Split: five folds of one man and one woman each, fixed by `SPEAKERS`.
"""

import re
from pathlib import Path
from typing import Union

import pandas as pd

from speechbrain_ssl.prepare.labelled import named_files, write_labelled

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
SPEAKERS = {  # sex, fold
    "03": ("m", "0"),
    "08": ("f", "0"),
    "09": ("f", "1"),
    "10": ("m", "1"),
    "11": ("m", "2"),
    "13": ("f", "2"),
    "12": ("m", "3"),
    "14": ("f", "3"),
    "15": ("m", "4"),
    "16": ("f", "4"),
}
# 03a01Fa, or emo03/a01/Fa as in VoxCeleb's layout
NAME = re.compile(
    rf"(?:emo)?({'|'.join(SPEAKERS)})/?([ab]\d\d)/?([WLEAFNT])([a-z]?)"
)


def prepare_emodb(
    data_folder: Union[str, Path],
    save_file: Union[str, Path],
    sample_rate: int = 16000,
) -> None:
    """Write the manifest of all seven classes.

    The official layout is `wav/03a01Fa.wav`: speaker, sentence, letter of the
    German emotion word, version. `wav/emo03/a01/Fa.flac` is read as well.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Holds `wav`.
    save_file : str or pathlib.Path
        The manifest, with the columns emotion, fold, sex and text.
    sample_rate : int
        Of every file, in Hz.

    Raises
    ------
    BadInputError
        If the layout is another one or a file cannot be used.
    """
    rows = []
    for path, match in named_files(
        Path(data_folder) / "wav", NAME, "03a01Fa.wav"
    ):
        speaker, text, letter, _ = match.groups()
        rows.append(
            {
                "ID": "".join(match.groups()),
                "wav": str(path),
                "spk_id": speaker,
                "emotion": EMOTIONS[letter],
                "fold": SPEAKERS[speaker][1],
                "sex": SPEAKERS[speaker][0],
                "text": text,
            }
        )
    write_labelled(pd.DataFrame(rows), save_file, sample_rate, "EmoDB")
