"""A made-up speech corpus: recipes run and learn on it without a download."""

import json
import os
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Union

import numpy as np
import soundfile
from numpy.random import Generator, SeedSequence, default_rng
from scipy import fft
from scipy.ndimage import convolve1d, gaussian_filter1d
from tqdm import tqdm

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import write_json

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples, 10 ms; a window is two hops, a transform three
BINS = np.linspace(0, 8, 3 * HOP // 2 + 1, dtype="float32")  # kHz
WARPED = np.log1p(BINS / 0.7) / np.log1p(BINS[-1] / 0.7)  # mel, 0 to 1
VERSION = "synthetic 1"  # raise it when the same settings make other bytes
TARGETS = 600  # at most; and five nontarget trials for each

# Adult male, roughly, in kHz: the first three formants of eight vowels, then
# the neutral upper ones and all bandwidths.
VOWELS = (  # i, e, E, a, O, o, u, @
    (0.29, 0.42, 0.60, 0.74, 0.56, 0.41, 0.31, 0.48),
    (2.25, 2.00, 1.75, 1.25, 0.92, 0.80, 0.87, 1.45),
    (3.00, 2.60, 2.50, 2.50, 2.45, 2.40, 2.25, 2.45),
)
UPPER = (3.5, 4.5, 5.5, 6.5)
BANDWIDTHS = (0.06, 0.08, 0.12, 0.18, 0.22, 0.28, 0.34)
# Noise made in the mouth, kinds 1 to 6: centre and width in kHz, level. Kind
# 0 is breath, which passes through the formants.
FRICTION = (  # s, S, f, t, k, p
    (6.0, 3.2, 6.5, 4.2, 1.9, 0.9),
    (1.4, 1.0, 4.0, 1.8, 0.6, 0.8),
    (0.20, 0.22, 0.05, 0.20, 0.25, 0.20),
)
# Formants in kHz, then the steps: frames, voicing, kind and gain of noise.
CONSONANTS = (
    ((0.25, 1.10, 2.30), ((7, 0.40, 0, 0.0),)),  # m
    ((0.25, 1.60, 2.60), ((7, 0.40, 0, 0.0),)),  # n
    ((0.35, 1.20, 2.80), ((6, 0.60, 0, 0.0),)),  # l
    ((0.40, 1.20, 1.70), ((6, 0.60, 0, 0.0),)),  # r
    ((0.28, 2.20, 3.00), ((6, 0.60, 0, 0.0),)),  # j
    ((0.35, 1.70, 2.60), ((10, 0.00, 1, 1.0),)),  # s
    ((0.35, 1.80, 2.50), ((10, 0.00, 2, 1.0),)),  # S
    ((0.35, 1.10, 2.30), ((9, 0.00, 3, 1.0),)),  # f
    ((0.30, 1.70, 2.60), ((7, 0.30, 1, 0.6),)),  # z
    ((0.30, 1.70, 2.60), ((6, 0, 0, 0), (2, 0, 4, 1.5), (3, 0, 0, 0.6))),  # t
    ((0.30, 2.00, 2.40), ((6, 0, 0, 0), (2, 0, 5, 1.5), (4, 0, 0, 0.6))),  # k
    ((0.30, 0.90, 2.30), ((6, 0, 0, 0), (2, 0, 6, 1.5), (3, 0, 0, 0.6))),  # p
    ((0.25, 1.70, 2.60), ((5, 0.15, 0, 0), (1, 0.3, 4, 0.8))),  # d
    ((0.25, 0.90, 2.30), ((5, 0.15, 0, 0), (1, 0.3, 6, 0.8))),  # b
)

README = """# Synthetic corpus

Not speech: made by `speechbrain_ssl.prepare.synthetic` from random draws. It
shows that a recipe runs and learns. **Results on it say nothing about real
speech**, and networks trained on it are of no use elsewhere.

- `wav/<speaker>/<session>/<utterance>.wav`: 16 kHz, mono, 16 bit. Even
  speakers are low-pitched, odd ones high-pitched.
- `train.txt`: `<speaker> <path below wav/>`, the training speakers.
- `trials.txt`: `<1 or 0> <enrol> <test>`, other speakers. A target trial is
  across sessions; half of the others, where possible, in one pitch range.
"""


@dataclass
class _Voice:
    """What stays the same in everything that a speaker says."""

    pitch: float  # Hz
    pitch_range: float  # semitones
    jitter: float  # share of a period
    breath: float  # relative to the voicing
    tempo: float  # 1 is average
    tract: float  # formants relative to those of an adult male
    vowels: np.ndarray  # (8, 3) kHz
    half_widths: np.ndarray  # (7,) kHz
    source: np.ndarray  # (BINS,) glottis, lips and upper formants, complex
    friction: np.ndarray  # (6, BINS) gains


@dataclass
class _Session:
    """What stays the same in a recording session."""

    channel: np.ndarray  # (BINS,) gain
    noise: np.ndarray  # (BINS,) gain
    snr: float  # dB
    pitch: float  # semitones, the mood


def _generator(seed: int, *indices: int) -> Generator:
    # Indices count from one: NumPy pads a short sequence with zeros, so
    # (seed, 1) and (seed, 1, 0) would be the same stream.
    return default_rng(SeedSequence([seed, *(i + 1 for i in indices)]))


def _damping(formant: Any, half_width: float) -> np.ndarray:
    """Inverse of the response of a formant at all bins, one at 0 Hz."""
    squared = np.square(formant) + half_width**2  # a number or (T, 1)
    inverse = (squared - BINS**2) + 2j * half_width * BINS
    return (inverse / squared).astype("complex64")


def _draw_voice(seed: int, speaker: int) -> _Voice:
    rng = _generator(seed, speaker)
    pitch, tract = (205, 1.16) if speaker % 2 else (115, 1.0)
    tract *= np.exp(0.1 * rng.normal())
    half_widths = np.exp(0.25 * rng.normal(size=7)) * BANDWIDTHS / 2
    tilt = rng.uniform(0.3, 1.2)  # 1 is -6 dB an octave
    source = np.maximum(BINS / 0.1, 1) ** -tilt
    upper = tract * np.exp(0.1 * rng.normal(size=4)) * UPPER
    for formant, half_width in zip(upper, half_widths[3:]):
        source = source / _damping(formant, half_width)
    changes = np.exp(rng.normal(size=(3, 6)) * [[0.1], [0.2], [0.2]])
    centres, widths, levels = (changes * FRICTION)[:, :, None]
    friction = levels * np.exp(-0.5 * np.square((BINS - centres) / widths))
    offsets = np.exp(0.07 * rng.normal(size=(8, 3)))
    return _Voice(
        pitch=pitch * np.exp(0.15 * rng.normal()),
        pitch_range=rng.uniform(0.8, 2.0),
        jitter=rng.uniform(0.003, 0.02),
        breath=float(np.exp(rng.uniform(np.log(0.02), np.log(0.3)))),
        tempo=rng.uniform(0.8, 1.25),
        tract=tract,
        vowels=tract * offsets * np.transpose(VOWELS),
        half_widths=half_widths.astype("float32"),
        source=source.astype("complex64"),
        friction=friction.astype("float32"),
    )


def _draw_smooth_gain(rng: Generator, spread: float) -> np.ndarray:
    """Random equaliser: a few slow cosines over the mel axis, in dB."""
    waves = np.cos(np.pi * np.arange(1, 6, dtype="float32")[:, None] * WARPED)
    return 10 ** (spread * rng.normal(size=5).astype("float32") @ waves / 20)


def _draw_session(seed: int, speaker: int, session: int) -> _Session:
    rng = _generator(seed, speaker, session)
    return _Session(
        channel=_draw_smooth_gain(rng, 1.2),
        noise=_draw_smooth_gain(rng, 1.0) / (BINS + 0.2) ** 1.5,
        snr=rng.uniform(15, 35),
        pitch=0.5 * rng.normal(),
    )


def _draw_syllable(voice: _Voice, rng: Generator) -> list:
    """Rows of frames, three formants, voicing, kind and gain of noise."""
    formants, steps = CONSONANTS[rng.integers(len(CONSONANTS))]
    formants = np.array(formants) * voice.tract
    stress = np.exp(0.2 * rng.normal())
    vowel = rng.choice(voice.vowels)
    rows = [
        (frames, *formants, stress * voicing, kind, stress * gain)
        for frames, voicing, kind, gain in steps
    ]
    rows.append((rng.uniform(6, 13), *vowel, stress, 0, 0))
    if rng.random() < 0.2:  # the end of a word
        rows.append((rng.uniform(6, 24), *vowel, 0, 0, 0))
    return rows


def _draw_tracks(voice: _Voice, rng: Generator) -> tuple:
    """Formants (T, 3) in kHz; gains (T, 8) of voicing and seven noises."""
    length = rng.integers(200, 351)
    rows = [(rng.uniform(5, 16), *voice.vowels[-1], 0, 0, 0)]
    while sum(row[0] for row in rows) < length * voice.tempo:
        rows += _draw_syllable(voice, rng)
    rows = np.array(rows)
    noises = rows[:, 6:] * np.eye(7)[rows[:, 5].astype(int)]
    tracks = np.hstack([rows[:, 1:5], noises]).astype("float32")
    frames = np.maximum(np.rint(rows[:, 0] / voice.tempo), 1).astype(int)
    tracks = np.repeat(tracks, frames, axis=0)[:length]
    tracks[-8:, 3:] = 0
    formants = convolve1d(tracks[:, :3], np.hanning(11) / 5, 0)
    return formants, convolve1d(tracks[:, 3:], [0.25, 0.5, 0.25], 0)


def _draw_pulses(voice: _Voice, shift: float, frames: int, rng: Generator):
    """Glottal pulses of unit power; pitch falls over the utterance."""
    melody = gaussian_filter1d(rng.normal(size=frames), 12)
    melody = melody / melody.std() + np.linspace(1, -1, frames)
    pitch = voice.pitch * 2 ** ((shift + voice.pitch_range * melody) / 12)
    passed = np.cumsum(pitch) * HOP / SAMPLE_RATE  # periods since the start
    periods = np.arange(int(passed[0]) + 1, int(passed[-1]))
    times = np.interp(periods, passed, HOP * np.arange(1, frames + 1))
    spacing = np.gradient(times)
    times = times + voice.jitter * spacing * rng.normal(size=len(times))
    whole = np.clip(times, 0, frames * HOP - 2).astype(int)
    late = times - whole  # a pulse is shared by two samples
    heights = np.sqrt(spacing) * np.exp(0.05 * rng.normal(size=len(times)))
    pulses = np.bincount(whole, heights * (1 - late), frames * HOP)
    pulses += np.bincount(whole + 1, heights * late, frames * HOP)
    return pulses.astype("float32")


def _spectra(signal: np.ndarray) -> np.ndarray:
    """Transforms (T, BINS) of windows of two hops, the third is zero."""
    hops = np.pad(signal, (HOP // 2, HOP // 2)).reshape(-1, HOP)
    windows = np.zeros((len(hops) - 1, 3 * HOP), dtype="float32")
    windows[:, : 2 * HOP] = np.hstack([hops[:-1], hops[1:]])
    windows[:, : 2 * HOP] *= np.hanning(2 * HOP + 1)[:-1].astype("float32")
    return fft.rfft(windows, axis=1)


def _overlap_add(spectra: np.ndarray) -> np.ndarray:
    """Signal of `HOP` samples a frame from filtered transforms."""
    windows = fft.irfft(spectra, axis=1).reshape(len(spectra), 3, HOP)
    hops = np.zeros((len(spectra) + 2, HOP), dtype="float32")
    for late in range(3):
        hops[late : late + len(spectra)] += windows[:, late]
    return hops.ravel()[HOP // 2 :][: len(spectra) * HOP]


def _render(voice: _Voice, session: _Session, rng: Generator) -> np.ndarray:
    """One utterance as 16-bit samples (T,)."""
    formants, gains = _draw_tracks(voice, rng)
    voicing, frames = gains[:, :1], len(gains)
    hiss, floor = rng.standard_normal((2, frames * HOP), dtype="float32")
    voiced = voice.source
    for formant, half_width in zip(formants.T, voice.half_widths):
        voiced = voiced / _damping(formant[:, None], half_width)  # (T, BINS)
    breath = (voice.breath * voicing + gains[:, 1:2]) * (0.2 + BINS)  # flatter
    noisy = breath * voiced + gains[:, 2:] @ voice.friction
    pulses = _draw_pulses(voice, session.pitch, frames, rng)
    spectra = _spectra(pulses) * (voicing * voiced) + _spectra(hiss) * noisy
    speech = _overlap_add(spectra * session.channel)
    floor = _overlap_add(_spectra(floor) * session.noise)
    floor *= speech.std() / floor.std() * 10 ** (-session.snr / 20)
    mixed = speech + floor
    mixed *= rng.uniform(0.5, 0.9) / np.abs(mixed).max()
    return np.rint(32767 * mixed).astype("int16")


def _draw_trials(paths: list, seed: int) -> list:
    """Lines of a trial list over `paths` (speaker, session, path)."""
    rng = _generator(seed)
    speakers, sessions = np.array([path[:2] for path in paths]).T
    enrol, test = np.triu_indices(len(paths), 1)
    same = speakers[enrol] == speakers[test]
    near = (speakers[enrol] - speakers[test]) % 2 == 0  # one pitch range
    targets = np.flatnonzero(same & (sessions[enrol] != sessions[test]))
    count = min(TARGETS, len(targets))
    chosen = [rng.choice(targets, count, replace=False)]
    for group in (~same & near, ~same & ~near):
        pairs = np.flatnonzero(group)
        size = min(5 * count // 2, len(pairs))
        chosen.append(rng.choice(pairs, size, replace=False))
    return [
        f"{int(same[pair])} {paths[enrol[pair]][2]} {paths[test[pair]][2]}"
        for pair in np.sort(np.concatenate(chosen))
    ]


def _write_wavs(folder: Path, settings: dict) -> list:
    """Write all utterances; their (speaker, session, path below wav/)."""
    seed, speakers = settings["seed"], range(settings["speakers"])
    places = list(product(speakers, range(settings["sessions"])))
    paths = []
    for speaker, session in tqdm(places, "synthetic corpus", delay=2):
        voice = _draw_voice(seed, speaker)
        place = _draw_session(seed, speaker, session)
        parent = f"spk{speaker:04d}/ses{session}"
        (folder / "wav" / parent).mkdir(parents=True)
        for utterance in range(settings["utterances"]):
            path = f"{parent}/utt{utterance}.wav"
            rng = _generator(seed, speaker, session, utterance)
            wav = _render(voice, place, rng)
            soundfile.write(folder / "wav" / path, wav, SAMPLE_RATE)
            paths.append((speaker, session, path))
    return paths


def _write_corpus(folder: Path, settings: dict) -> None:
    """Write everything into an empty folder, the settings last."""
    paths = _write_wavs(folder, settings)
    trained = settings["speakers"] - max(2, settings["speakers"] // 4)
    train = [f"spk{row[0]:04d} {row[2]}" for row in paths if row[0] < trained]
    held_out = [row for row in paths if row[0] >= trained]
    trials = _draw_trials(held_out, settings["seed"])
    for name, lines in (("train.txt", train), ("trials.txt", trials)):
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "README.md").write_text(README, "utf-8")
    write_json(settings, folder / "corpus.json")


def _replace_when_done(folder: Path, settings: dict) -> None:
    """Write beside `folder`, then take its place; clean up in any case."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    try:
        temporary.mkdir(parents=True)
        _write_corpus(temporary, settings)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_made(folder: Path, settings: dict) -> bool:
    """Whether the corpus is there; raise if anything else is."""
    advice = "Name another folder, or delete this one if nobody needs it."
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return False
        found = json.loads((folder / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        problem = f"it exists and is not a synthetic corpus ({error})"
        refuse(str(folder), [problem], advice)
    if found != settings:
        refuse(str(folder), [f"it has {found}, not {settings}"], advice)
    return True


def _check_settings(settings: dict) -> None:
    least = {"speakers": 4, "sessions": 2, "utterances": 1, "seed": 0}
    problems = [
        f"{name} is {settings[name]!r}; it is a whole number from {low} up"
        for name, low in least.items()
        if type(settings[name]) is not int or settings[name] < low
    ]
    refuse("synthetic corpus", problems, "Correct these numbers.")


def make_synthetic_corpus(
    folder: Union[str, Path],
    speakers: int = 84,
    sessions: int = 3,
    utterances: int = 4,
    seed: int = 1234,
) -> Path:
    """Make a corpus of source-filter synthesis in the layout of VoxCeleb.

    A speaker is a draw of mean pitch, vocal-tract length, vowels, formant
    bandwidths, spectral tilt, jitter, breathiness, tempo and pitch range. An
    utterance is 2 to 3.5 s of random consonants, vowels and pauses; a session
    adds a smooth channel and a noise floor of 15 to 35 dB. It is for trying
    recipes without data; results on it say nothing about real speech.
    Source: G. Fant, Acoustic Theory of Speech Production, 1960.

    The last quarter of the speakers, at least two, is for trials. The folder
    appears complete or not at all; a complete one is left as it is. A seed
    gives the same bytes on every run (another NumPy or processor may round
    the last bit differently).

    Arguments
    ---------
    folder : str or pathlib.Path
        Where to make it: absent, empty, or this corpus made earlier.
    speakers : int
        Of training and trials together, at least 4.
    sessions, utterances, seed : int
        Sessions of a speaker, at least 2; utterances of each, at least 1.

    Returns
    -------
    pathlib.Path
        The folder; its `README.md` says what is where.

    Raises
    ------
    BadInputError
        If a size is too small, or the folder is in use or not writable.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> corpus = make_synthetic_corpus(f"{folder}/toy", 4, 2, 1)
    >>> (corpus / "train.txt").read_text().splitlines()[0]
    'spk0000 spk0000/ses0/utt0.wav'
    """
    folder = Path(folder).resolve()
    settings = {
        "version": VERSION,
        "speakers": speakers,
        "sessions": sessions,
        "utterances": utterances,
        "seed": seed,
    }
    _check_settings(settings)
    if _is_made(folder, settings):
        return folder
    try:
        _replace_when_done(folder, settings)
    except (OSError, soundfile.SoundFileError) as error:
        if not _is_made(folder, settings):  # by another process meanwhile
            problem = f"it cannot be written: {error}"
            refuse(str(folder), [problem], "Name another folder.")
    return folder
