"""Items per second of the six-view loader, beside separate reads.

python benchmarks/loading.py [--items 200]

One worker's work on one thread: 2 x 4 s + 4 x 2 s of an 8-s file with noise
and rooms drawn for each view. The naive twin reads the file again for every
crop, decodes whole noise files and convolves with scipy, as several toolkits
do. Files are written to a temporary folder first, so they come from the page
cache.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from scipy.signal import convolve
from timing import side_by_side

from speechbrain_ssl.augment import SNR_RANGES, Augment
from speechbrain_ssl.dataio.audio import fit_length, level
from speechbrain_ssl.dataio.views import ViewDataset, ViewPlan

RATE = 16000


def write(path, samples):
    """A file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(len(str(path)))
    soundfile.write(path, draw.normal(0, 0.1, samples), RATE)
    return str(path)


def corpus(folder):
    """Speech, noise of 60 s as in MUSAN, and rooms of 0.5 s."""
    files = [write(folder / "wav" / f"{n}.wav", 8 * RATE) for n in range(32)]
    for kind in SNR_RANGES:
        for number in range(4):
            write(folder / "noise" / kind / f"{number}.wav", 60 * RATE)
    for number in range(8):
        write(folder / "rir" / f"{number}.wav", RATE // 2)
    return pd.DataFrame({"wav": files, "start": 0, "stop": 8 * RATE})


def naive_item(path, augment, generator):
    """Every crop read, reverberated and given noise on its own."""
    views = []
    for seconds in (4, 4, 2, 2, 2, 2):
        length = seconds * RATE
        start = int(generator.integers(8 * RATE - length + 1))
        wave, _ = soundfile.read(
            path, start=start, stop=start + length, dtype="float32"
        )
        if generator.random() < 0.45:
            room = augment.rooms[generator.integers(len(augment.rooms))]
            response, _ = soundfile.read(room, dtype="float32")
            wave = convolve(wave, response)[:length]
        if generator.random() < 0.7:
            kind = list(SNR_RANGES)[generator.integers(3)]
            files = augment.noises[kind]
            noise, _ = soundfile.read(
                files[generator.integers(len(files))][0], dtype="float32"
            )
            first = int(generator.integers(len(noise) - length + 1))
            wave, noise = map(
                torch.from_numpy, (wave, noise[first : first + length])
            )
            wave = wave + fit_length(noise, length) * (
                level(wave) / level(noise) / 3
            )
        views.append(torch.as_tensor(wave))
    return views


def main():
    """Print items per second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = corpus(folder)
        augment = Augment(str(folder / "noise"), str(folder / "rir"))
        dataset = ViewDataset(
            rows, range(32), [4.0, 2.0], [2, 4], augment=augment
        )
        plain = ViewDataset(rows, range(32), [4.0, 2.0], [2, 4])
        numbers = range(arguments.items)

        def naive():
            for number in numbers:
                generator = np.random.default_rng(number)
                naive_item(rows["wav"][number % 32], augment, generator)

        times = side_by_side(
            {
                "ours": lambda: [
                    dataset[ViewPlan(n % 32, (1, 1, n, 0))] for n in numbers
                ],
                "ours, no augmentation": lambda: [
                    plain[ViewPlan(n % 32, (1, 1, n, 0))] for n in numbers
                ],
                "naive": naive,
            },
            3,
        )
    for label, spent in times.items():
        each = spent / arguments.items
        print(
            f"  {label:<22} {each:6.2f} ms, {1000 / each:6.0f} items a second"
        )
    print(f"  ours is {times['naive'] / times['ours']:.1f} times faster")


if __name__ == "__main__":
    main()
