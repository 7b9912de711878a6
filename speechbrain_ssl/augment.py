"""Noise and reverberation drawn per item from a generator of its own."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Optional

import numpy as np
import soundfile
import torch
from scipy.fft import next_fast_len

from speechbrain_ssl.checks import nearest, refuse
from speechbrain_ssl.dataio.audio import fit_length, level, read_piece
from speechbrain_ssl.dataio.files import audio_below

# Signal-to-noise ranges of the DINO authors' recipe, decibels (methods of
# Cho et al. 2022, arXiv:2208.05413); other folders take the widest.
SNR_RANGES = {"noise": (0, 18), "music": (3, 18), "babble": (3, 18)}


class Augment:
    """Additive noise and room reverberation, one draw an item.

    SpeechBrain's AddReverb and AddNoise share one room and one start index in
    a batch, which contrastive training can use as a cue; here every call
    draws its own from the generator given, and noise files are read by
    seeking.

    Arguments
    ---------
    noise_folder : str, optional
        Folder of folders named by kind (noise, music, babble, ...). Without
        it no noise is added.
    rir_folder : str, optional
        Folder of mono room responses, searched in depth. Without it nothing
        is reverberated.
    noise_probability, reverb_probability : float
        0 to 1.
    sample_rate : int
        Hz; files of another rate are refused.

    Raises
    ------
    BadInputError
        If a folder has no audio, a file has another rate or a probability is
        outside 0 to 1.

    Example
    -------
    >>> wave = torch.randn(1600)
    >>> augment = Augment()
    >>> augment.add_noise(wave, np.random.default_rng(1)) is wave
    True
    """

    def __init__(
        self,
        noise_folder: Optional[str] = None,
        rir_folder: Optional[str] = None,
        noise_probability: float = 0.7,
        reverb_probability: float = 0.45,
        sample_rate: int = 16000,
    ):
        problems = [
            f"{name} is {value}; it lies between 0 and 1"
            for name, value in (
                ("noise_probability", noise_probability),
                ("reverb_probability", reverb_probability),
            )
            if not 0 <= value <= 1
        ]
        refuse("augmentation", problems, "Correct it in the YAML.")
        self.noise_probability = noise_probability
        self.reverb_probability = reverb_probability
        noises = audio_files(noise_folder, sample_rate)
        self.noises = {}
        for path, samples in noises:
            folders = path.relative_to(noise_folder).parts[:-1]
            kind = folders[0] if folders else "noise"
            self.noises.setdefault(kind, []).append((str(path), samples))
        self.rooms = [
            str(path) for path, _ in audio_files(rir_folder, sample_rate)
        ]

    def check(self, kinds: Sequence[str]) -> None:
        """Refuse kinds that `apply` could not serve.

        Arguments
        ---------
        kinds : sequence of str
            See `apply`.

        Raises
        ------
        BadInputError
            If a kind is unknown, or has no files.
        """
        known = ["random", "one", "clean", *self._sources()]
        refuse(
            "augmentations",
            [
                f"'{kind}' is none of {', '.join(known)}{nearest(kind, known)}"
                for kind in kinds
                if kind not in known
            ],
            "Correct it, or give a noise_folder and rir_folder that have it.",
        )

    def apply(
        self,
        wave: torch.Tensor,
        generator: np.random.Generator,
        kind: str = "random",
    ) -> torch.Tensor:
        """Wave augmented in one of several ways.

        Arguments
        ---------
        wave : torch.Tensor
            (T,).
        generator : numpy.random.Generator
            Source of the draws.
        kind : str
            `random`: a room, then noise, each with its probability; `room` or
            a folder of `noise_folder` (noise, music, babble): certainly that;
            `one`: one of these, all as likely; `clean`: as it is.

        Returns
        -------
        torch.Tensor
            (T,).
        """
        if kind == "random":
            return self.add_noise(self.reverberate(wave, generator), generator)
        if kind == "one" and self._sources():
            kind = self._sources()[generator.integers(len(self._sources()))]
        if kind == "room":
            return self._in_room(wave, generator)
        if kind in self.noises:
            return self._with_noise(wave, generator, kind)
        return wave

    def _sources(self):
        return [*["room"] * bool(self.rooms), *sorted(self.noises)]

    def reverberate(
        self, wave: torch.Tensor, generator: np.random.Generator
    ) -> torch.Tensor:
        """Wave in a drawn room, aligned with the dry wave, at its level.

        Arguments
        ---------
        wave : torch.Tensor
            (T,).
        generator : numpy.random.Generator
            Source of the draw.

        Returns
        -------
        torch.Tensor
            (T,).
        """
        if not self.rooms or generator.random() >= self.reverb_probability:
            return wave
        return self._in_room(wave, generator)

    def _in_room(self, wave, generator):
        room = _response(self.rooms[generator.integers(len(self.rooms))])
        size = next_fast_len(len(wave) + len(room) - 1, real=True)
        spectrum = torch.fft.rfft(wave, size) * torch.fft.rfft(room, size)
        wet = torch.fft.irfft(spectrum, size)
        wet = wet[room.abs().argmax() :][: len(wave)]  # direct path first
        return wet * (level(wave) / level(wet))

    def add_noise(
        self, wave: torch.Tensor, generator: np.random.Generator
    ) -> torch.Tensor:
        """Wave with a drawn piece of noise at a drawn level.

        Arguments
        ---------
        wave : torch.Tensor
            (T,).
        generator : numpy.random.Generator
            Source of the draw.

        Returns
        -------
        torch.Tensor
            (T,).
        """
        if not self.noises or generator.random() >= self.noise_probability:
            return wave
        kinds = sorted(self.noises)
        kind = kinds[generator.integers(len(kinds))]
        return self._with_noise(wave, generator, kind)

    def _with_noise(self, wave, generator, kind):
        path, samples = self.noises[kind][
            generator.integers(len(self.noises[kind]))
        ]
        start = int(generator.integers(max(1, samples - len(wave) + 1)))
        stop = min(samples, start + len(wave))
        noise = fit_length(read_piece(path, start, stop), len(wave))
        low, high = SNR_RANGES.get(kind, (0, 18))
        ratio = 10 ** (-generator.uniform(low, high) / 20)
        return wave + noise * (ratio * level(wave) / level(noise))


def audio_files(
    folder: Optional[str], sample_rate: int
) -> list[tuple[Path, int]]:
    """Mono WAV and FLAC files of a folder, searched in depth, by name.

    Arguments
    ---------
    folder : str, optional
        None has no files.
    sample_rate : int
        Hz that all must have.

    Returns
    -------
    list of (pathlib.Path, int)
        File and samples.

    Raises
    ------
    BadInputError
        If it has no audio, or a file is empty, of another rate or of several
        channels.
    """
    if folder is None:
        return []
    paths = audio_below(folder)
    problems = [] if paths else ["no .wav or .flac file was found"]
    infos = [soundfile.info(str(path)) for path in paths]
    problems += [
        f"{path} has {info.samplerate} Hz and {info.channels} channel(s); "
        f"{sample_rate} Hz and one are expected"
        for path, info in zip(paths, infos)
        if (info.samplerate, info.channels) != (sample_rate, 1)
    ]
    problems += [
        f"{path} has no samples"
        for path, info in zip(paths, infos)
        if info.frames == 0
    ]
    refuse(str(folder), problems, "Give another folder or leave it out.")
    return [(path, info.frames) for path, info in zip(paths, infos)]


@lru_cache(maxsize=256)  # tens of thousands would not fit in memory
def _response(path):
    return read_piece(path, 0, soundfile.info(path).frames)
