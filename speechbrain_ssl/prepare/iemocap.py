"""IEMOCAP: ten actors in five sessions, English dialogues, four classes.

Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan, "IEMOCAP:
interactive emotional dyadic motion capture database", Language Resources and
Evaluation 42, 2008. Licence: research, after the release form of SAIL, USC.
Split: five folds, one session of two speakers each. The classes are those of
SpeechBrain's recipes/IEMOCAP: neutral, sad, angry, and happy with excited.
"""

import re
from pathlib import Path
from typing import Union

import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.prepare.labelled import write_labelled

logger = get_logger(__name__)

EMOTIONS = {
    "ang": "anger",
    "exc": "happiness",
    "hap": "happiness",
    "neu": "neutral",
    "sad": "sadness",
}
UTTERANCES = 5531  # of the four classes in the full release
# [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]
TURN = re.compile(
    r"^\[[\d.]+ - [\d.]+\]\t((Ses0\d)\w+_([FM])\d+)\t(\w{3})\t", re.MULTILINE
)


def prepare_iemocap(
    data_folder: Union[str, Path],
    save_file: Union[str, Path],
    sample_rate: int = 16000,
) -> None:
    """Write the manifest of the four classes, scripted and improvised.

    Turns and the emotion that the annotators agree on come from
    `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`, the recording is
    `Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav`.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        `IEMOCAP_full_release`, which holds `Session1` to `Session5`.
    save_file : str or pathlib.Path
        The manifest, with the columns emotion, fold (the session) and sex.
    sample_rate : int
        Of every file, in Hz.

    Raises
    ------
    BadInputError
        If the layout is another one or a file cannot be used.
    """
    rows = []
    pattern = "Session[1-5]/dialog/EmoEvaluation/Ses*.txt"
    for notes in sorted(Path(data_folder).glob(pattern)):
        session = notes.parents[2]
        wavs = session / "sentences" / "wav" / notes.stem
        text = notes.read_text(encoding="utf-8")
        for turn, dialogue, sex, emotion in TURN.findall(text):
            if emotion in EMOTIONS:
                rows.append(
                    {
                        "ID": turn,
                        "wav": str(wavs / f"{turn}.wav"),
                        "spk_id": f"{dialogue}{sex}",
                        "emotion": EMOTIONS[emotion],
                        "fold": session.name[-1],
                        "sex": sex.lower(),
                    }
                )
    if len(rows) != UTTERANCES:
        logger.warning(
            "%d utterances of the four classes; the full release has %d.",
            len(rows),
            UTTERANCES,
        )
    write_labelled(pd.DataFrame(rows), save_file, sample_rate, "IEMOCAP")
