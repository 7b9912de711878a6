"""Small VoxCeleb trees for the tests of the preparation."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.prepare.voxceleb import (
    prepare_voxceleb,
)

EXPECTED = Path(__file__).parents[2] / "shared" / "data" / "voxceleb_prepare"
RATE = 16000
TRIALS = "1 id9/s/a.wav id9/s/b.wav\n0 id9/s/a.wav id8/s/a.wav\n"


def tone(samples, amplitude=0.2):
    return amplitude * np.sin(2 * np.pi * 200 * np.arange(samples) / RATE)


def add(root, name, wave=None, rate=RATE, **options):
    path = Path(root, "wav", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = tone(4800) if wave is None else wave
    soundfile.write(path, wave, rate, **options)
    return path


def prepare(root, name="out", **changes):
    """Prepare `root` by files beside it; returns the folder of manifests."""
    out = Path(root).parent / name
    options = {
        "data_folder": str(root),
        "save_folder": str(out),
        "verification_pairs_file": Path(root).parent / "veri.txt",
        "random_segment": True,
    }
    prepare_voxceleb(**{**options, **changes})
    return out


def ids(out, *names):
    return [
        i for name in names for i in read_manifest(out / f"{name}.csv")["ID"]
    ]


def refused(root, **changes):
    """Message of a refusal that leaves nothing behind."""
    with pytest.raises(BadInputError) as error:
        prepare(root, **changes)
    out = root.parent / "out"
    assert not out.is_dir() or not list(out.iterdir())
    return str(error.value)


def write_garbage(path):
    path.write_bytes(b"RIFF and no more" * 9)
