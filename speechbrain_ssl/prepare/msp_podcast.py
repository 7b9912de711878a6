"""MSP-Podcast: turns of podcasts with the emotion that listeners agree on.

Lotfian, Busso, "Building naturalistic emotionally balanced speech corpus by
retrieving emotional speech from existing podcast recordings", IEEE Transactions
on Affective Computing 10, 2019. Licence: academic or commercial agreement with
the MSP lab, UT Dallas. Split: the official partitions Train, Development and
Test1; other test sets are left out.
"""

from pathlib import Path
from typing import Union

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.prepare.labelled import read_table, write_labelled

EMOTIONS = {
    "A": "anger",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
    "U": "surprise",
}
PARTITIONS = {
    "Train": "train",
    "Development": "valid",
    "Validation": "valid",  # of early releases
    "Test1": "test",
}
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")


def prepare_msp_podcast(
    data_folder: Union[str, Path],
    save_file: Union[str, Path],
    sample_rate: int = 16000,
) -> None:
    """Write the manifest of the eight classes.

    Turns without agreement (X) or with another emotion (O) are left out.
    Unknown speakers count as one a podcast.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Holds `Labels/labels_consensus.csv` (`labels_concensus.csv` in early
        releases) and `Audios`.
    save_file : str or pathlib.Path
        The manifest, with the columns emotion, fold (train, valid, test) and
        sex.
    sample_rate : int
        Of every file, in Hz.

    Raises
    ------
    BadInputError
        If the layout is another one or a file cannot be used.
    """
    folder = Path(data_folder)
    found = sorted((folder / "Labels").glob("labels_con[sc]ensus.csv"))
    problem = "it has no Labels/labels_consensus.csv"
    advice = "Give the folder that holds Labels and Audios of the release."
    refuse(str(folder), [] if found else [problem], advice)
    table = read_table(found[-1], COLUMNS, advice)
    table["emotion"] = table["EmoClass"].map(EMOTIONS)
    table["fold"] = table["Split_Set"].map(PARTITIONS)
    table = table.dropna(subset=["emotion", "fold"])
    names = table["FileName"].str.removesuffix(".wav")
    podcast = names.str.rpartition("_")[0]
    known = ~table["SpkrID"].str.lower().isin(["unknown", ""])
    table["spk_id"] = table["SpkrID"].where(known, "unknown " + podcast)
    table["ID"] = names
    table["wav"] = [str(folder / "Audios" / f"{name}.wav") for name in names]
    table["sex"] = table["Gender"].str.lower().str[:1].replace("u", "")
    table = table[["ID", "wav", "spk_id", "emotion", "fold", "sex"]]
    write_labelled(table, save_file, sample_rate, "MSP-Podcast")
