"""CN-Celeb1 and 2 as published, small, for the tests of its preparation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from trees import RATE

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.prepare.cnceleb import prepare_cnceleb

SPEAKERS = {"dev/dev.lst": 4, "spk.lst": 4}
EVALUATION = {
    "models": 2,
    "test utterances": 4,
    "trials": 7,
    "target trials": 4,
}
GENRES = ("live_broadcast", "singing")


def write_cnceleb(root, suffix=".flac", speakers=4, seconds=0.4):
    """CN-Celeb1 and 2 as published, small; the two folders, with a comma.

    Each training speaker has two genres of two videos of two recordings; two
    models of two cuts meet two tests a speaker. Lists say .wav, as published.
    """
    one, two = Path(root, "CN-Celeb_flac"), Path(root, "CN-Celeb2_flac")
    draw = np.random.default_rng(7)

    def write(folder, name, pitch, share=1.0):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(share * seconds * RATE)) / RATE
        wave = 0.2 * np.sin(2 * np.pi * pitch * time)
        wave += draw.normal(0, 0.02, len(time))
        soundfile.write(path, wave, RATE, subtype="PCM_16")

    for folder, first in ((one, 0), (two, 10000)):
        for number in range(speakers):
            for genre in GENRES:
                for video in ("01-001", "01-002", "02-001", "02-002"):
                    name = f"data/id{first + number:05d}/{genre}-{video}"
                    write(folder, name, 120 + 20 * number + first / 100)
    ids = [f"id{number:05d}" for number in range(speakers)]
    trials, files, cuts = [], [], []
    for number in (800, 801):
        pitch = 150 * (number - 799)
        speaker, model = f"id{number:05d}", f"id{number:05d}-enroll"
        for genre in GENRES:
            write(one, f"data/{speaker}/{genre}-01-001", pitch)
            write(one, f"eval/test/{speaker}-{genre}-02-001", pitch)
        write(one, f"eval/enroll/{model}", pitch, share=2.0)
        files.append(f"{model} enroll/{model}.wav")
        own = [f"{speaker}/{genre}-01-001.wav" for genre in GENRES]
        cuts.append(" ".join([model, *own]))
        trials += [
            f"{model} test/id{other:05d}-{genre}-02-001.wav "
            f"{int(other == number)}"
            for other in (800, 801)
            for genre in GENRES
        ]
    trials.remove("id00801-enroll test/id00800-singing-02-001.wav 0")
    lists = {
        one / "dev" / "dev.lst": ids,
        one / "eval" / "lists" / "trials.lst": trials,
        one / "eval" / "lists" / "enroll.lst": files,
        one / "eval" / "lists" / "enroll.map": cuts,
        two / "spk.lst": [f"id1{name[3:]}" for name in ids],
    }
    for path, lines in lists.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return f"{one},{two}"


def prepare(corpus, name="out", **changes):
    """Prepare into a folder beside the corpus; returns that folder."""
    out = Path(corpus.split(",")[0]).parent / name
    options = {"split_ratio": (75, 25), **changes}
    prepare_cnceleb(corpus, out, **options)
    return out


def rows_of(out, *names):
    """Rows of one or several manifests."""
    return pd.concat([read_manifest(out / f"{n}.csv") for n in names])


def refused(corpus, **changes):
    """Message of a refusal that leaves nothing behind."""
    with pytest.raises(BadInputError) as error:
        prepare(corpus, **changes)
    out = Path(corpus.split(",")[0]).parent / "out"
    assert not out.is_dir() or not list(out.iterdir())
    return str(error.value)
