"""Audio files of a corpus: found by their layout, checked by their header."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

import numpy as np
import soundfile
from speechbrain.utils.logger import get_logger
from speechbrain.utils.parallel import parallel_map
from tqdm import tqdm

from speechbrain_ssl.checks import refuse, summarise
from speechbrain_ssl.dataio.files import SUFFIXES, files_below

OTHERS = (".m4a", ".mp3", ".ogg", ".opus", ".aac")
DEEPEST = 4  # one more than the layout has: files that lie too deep show
SERIAL_FILES = 2000  # up to here a process pool costs more than it saves
SILENT_PEAK = 1e-4  # of full scale; three steps of 16-bit audio
UNKNOWN_FRAMES = 2**62  # libsndfile's length of a stream that does not tell

logger = get_logger(__name__)


class Utterance(NamedTuple):
    """A file at `wav/<speaker>/<session>/<name>.<suffix>` of some root."""

    speaker: str
    session: str
    name: str  # without suffix
    path: str
    version: str  # size and time of the last change

    @property
    def key(self) -> str:
        """`speaker/session/name`, unique in a corpus."""
        return f"{self.speaker}/{self.session}/{self.name}"


class Checks(NamedTuple):
    """What `inspect_audio` looks at besides a readable mono header."""

    sample_rate: int  # Hz
    shortest_seconds: float = 0.0
    samples: bool = False  # read all samples: silence, NaN, infinity
    level_seconds: Optional[float] = None  # measure pieces of this length


class Audio(NamedTuple):
    """What one file holds, or why it cannot be used."""

    path: str
    frames: int = 0
    levels: tuple[float, ...] = ()  # mean absolute amplitude of the pieces
    fault: str = ""  # its kind; empty for a usable file
    problem: str = ""  # the same in a sentence


def find_utterances(roots: Sequence[Union[str, Path]]) -> list[Utterance]:
    """Audio files of VoxCeleb's layout, whatever the file system's order.

    Hidden files are passed over; audio at another depth or of another format
    is warned about.

    Arguments
    ---------
    roots : sequence of str or pathlib.Path
        Folders that hold `wav/<speaker>/<session>/<utterance>.{wav,flac}`.

    Returns
    -------
    list of Utterance
        Sorted by key.

    Raises
    ------
    BadInputError
        If a root is missing, may not be read, has no `wav` folder or no audio
        in that layout, or if two files are the same utterance.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> file = folder.ensure("wav", "id1", "video", "00001.wav")
    >>> find_utterances([folder])[0].key
    'id1/video/00001'
    """
    advice = (
        "The layout is DATA_FOLDER/wav/SPEAKER/SESSION/UTTERANCE.wav (or "
        ".flac); with several roots each utterance is in one of them."
    )
    refuse("data_folder", filter(None, map(_root_problem, roots)), advice)
    found: list[Utterance] = []
    problems, strays, others = [], [], []
    for root in roots:
        try:
            files = list(files_below(os.path.join(root, "wav"), DEEPEST))
        except PermissionError as error:
            problems.append(f"'{error.filename}' may not be read")
            continue
        audio = [
            (names, entry)
            for names, entry in files
            if names[-1].lower().endswith(SUFFIXES)
        ]
        here = [_utterance(*file) for file in audio if len(file[0]) == 3]
        strays += [entry.path for names, entry in audio if len(names) != 3]
        others += [e.path for n, e in files if n[-1].lower().endswith(OTHERS)]
        found += here
        if not here:
            example = f", e.g. '{files[0][1].path}'" if files else ""
            problems.append(
                f"'{root}' has no audio at wav/SPEAKER/SESSION/; found below "
                f"wav: {len(files)} files, {len(audio)} of them .wav or .flac"
                f"{example}"
            )
    found.sort(key=lambda utterance: (utterance.key, utterance.path))
    problems += [
        f"'{one.path}' and '{other.path}' are the same utterance"
        for one, other in zip(found, found[1:])
        if one.key == other.key
    ]
    refuse("data_folder", problems, advice)
    for paths, what in (
        (others, "neither .wav nor .flac"),
        (strays, "not at wav/SPEAKER/SESSION/"),
    ):
        if paths:
            kept_out = "%d audio files are %s and are left out, e.g. '%s'"
            logger.warning(kept_out, len(paths), what, min(paths))
    return found


def version_of(entry: os.DirEntry) -> str:
    """Size and time of the last change of a file."""
    try:
        status = entry.stat()
    except OSError:  # a broken link; inspect_audio names it
        return "unknown"
    return f"{status.st_size} {status.st_mtime_ns}"


def fingerprint(utterances: Iterable[Utterance]) -> str:
    """Hash of the names, sizes and times of change of a list of files.

    Example
    -------
    >>> fingerprint([]) == fingerprint([Utterance("a", "b", "c", "d", "1 2")])
    False
    """
    lines = sorted(f"{item.path}\t{item.version}" for item in utterances)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pieces(
    frames: int, sample_rate: int, seconds: float
) -> list[tuple[str, int, int]]:
    """Consecutive pieces of equal length, without the shorter rest.

    Limits are computed in floating-point seconds, as in the names that
    SpeechBrain's preparation gives to pieces.

    Arguments
    ---------
    frames : int
        Samples of the file.
    sample_rate : int
        In Hz.
    seconds : float
        Length of a piece.

    Returns
    -------
    list of (str, int, int)
        Name ('START_STOP' in seconds), first sample, sample after the last.

    Example
    -------
    >>> pieces(100000, 16000, 3.0)
    [('0.0_3.0', 0, 48000), ('3.0_6.0', 48000, 96000)]
    """
    starts = [i * seconds for i in range(int(frames / sample_rate / seconds))]
    return [
        (
            f"{start}_{start + seconds}",
            int(start * sample_rate),
            int((start + seconds) * sample_rate),
        )
        for start in starts
    ]


def inspect_audio(path: str, checks: Checks) -> Audio:
    """Length and fault of one file; samples are read only when asked for.

    Arguments
    ---------
    path : str
        A file that libsndfile should read.
    checks : Checks
        What to look at. Samples that are read for any reason must be finite.

    Returns
    -------
    Audio
        With `fault` one of: unreadable, empty, several channels, another
        sample rate, too short, silent, not finite.
    """
    try:
        with soundfile.SoundFile(path) as file:
            fault, problem = _header_fault(file, checks)
            audio = Audio(path, file.frames, fault=fault, problem=problem)
            if fault or not (checks.samples or checks.level_seconds):
                return audio
            signal = file.read(dtype="float32")  # (T,)
    except (soundfile.SoundFileError, OSError) as error:
        if os.path.isfile(path) and not os.path.getsize(path):
            return Audio(path, fault="empty", problem="has no bytes")
        problem = f"cannot be read ({error})"
        return Audio(path, fault="unreadable", problem=problem)
    fault, problem = _signal_fault(signal, audio.frames, checks.samples)
    if fault:
        return audio._replace(fault=fault, problem=problem)
    if checks.level_seconds is None:
        return audio
    limits = pieces(audio.frames, checks.sample_rate, checks.level_seconds)
    return audio._replace(
        levels=tuple(
            float(np.abs(signal[start:stop]).mean())
            for _, start, stop in limits
        )
    )


def inspect_all(
    paths: Sequence[str], checks: Checks, workers: Optional[int] = None
) -> list[Audio]:
    """`inspect_audio` of every file, by several processes when they are many.

    Arguments
    ---------
    paths : sequence of str
        The files.
    checks : Checks
        What to look at.
    workers : int, optional
        Processes for more than `SERIAL_FILES` files; None takes all
        processors, 0 or 1 none but this process.

    Returns
    -------
    list of Audio
        In the order of `paths`.
    """
    inspect = partial(inspect_audio, checks=checks)
    return for_each(inspect, paths, workers, "Checking audio")


def for_each(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: Optional[int],
    what: str,
) -> list[Any]:
    """Results in order, by several processes for over `SERIAL_FILES` items."""
    bar = {"desc": what, "unit": "file", "delay": 5}
    if len(items) <= SERIAL_FILES or workers in (0, 1):
        return [function(item) for item in tqdm(items, **bar)]
    results = parallel_map(
        function, items, workers, chunk_size=64, progress_bar_kwargs=bar
    )
    return list(results)


def keep_usable(
    audios: Sequence[Audio], what: str, most_bad: float, advice: str
) -> list[Audio]:
    """Files without fault; the others are counted by kind and warned about.

    Arguments
    ---------
    audios : sequence of Audio
        What `inspect_all` returned.
    what : str
        Name of these files in messages, e.g. "training files".
    most_bad : float
        Largest share of faulty files to go on with, 0 to 1.
    advice : str
        What to do about faulty files.

    Returns
    -------
    list of Audio

    Raises
    ------
    BadInputError
        If a larger share is faulty, or every file.

    Example
    -------
    >>> keep_usable([Audio("a.wav", 16000)], "files", 0.0, "Repair them.")
    [Audio(path='a.wav', frames=16000, levels=(), fault='', problem='')]
    """
    faulty = [audio for audio in audios if audio.fault]
    if not faulty:
        return list(audios)
    kinds = Counter(audio.fault for audio in faulty).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    what = f"{len(faulty)} of {len(audios)} {what} cannot be used ({counts})"
    problems = [f"'{audio.path}' {audio.problem}" for audio in faulty]
    if len(faulty) > most_bad * len(audios) or len(faulty) == len(audios):
        refuse(what, problems, advice)
    logger.warning("%s and are left out: %s", what, summarise(problems))
    return [audio for audio in audios if not audio.fault]


def _root_problem(root: Union[str, Path]) -> str:
    """What is wrong with the folder itself, or an empty string."""
    root = Path(root)
    if not root.is_dir():
        return f"'{root}' is not a folder that exists"
    if (root / "wav").is_dir():
        return ""
    if root.name == "wav":
        return f"'{root}' is the wav folder itself; give the one above it"
    inside = sorted(path.name for path in root.iterdir())
    shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
    return f"'{root}' has no folder 'wav'; it holds: {shown or 'nothing'}"


def _utterance(names: tuple[str, ...], entry: os.DirEntry) -> Utterance:
    """The utterance at three names below wav."""
    speaker, session, name = names
    name, version = Path(name).stem, version_of(entry)
    return Utterance(speaker, session, name, entry.path, version)


def _header_fault(file: soundfile.SoundFile, checks: Checks) -> tuple[str, str]:
    """Kind and sentence of what the header shows, both empty if usable."""
    if file.frames == 0:
        return "empty", "has no samples"
    if file.frames >= UNKNOWN_FRAMES:
        return "unreadable", "does not give its length; encode it again"
    if file.channels != 1:
        problem = f"has {file.channels} channels; 1 is expected"
        return "several channels", problem
    if file.samplerate != checks.sample_rate:
        return "another sample rate", (
            f"has {file.samplerate} Hz; {checks.sample_rate} Hz is expected"
        )
    seconds = file.frames / file.samplerate
    if seconds < checks.shortest_seconds:
        return "too short", (
            f"lasts {seconds:g} s; at least {checks.shortest_seconds:g} s "
            "is expected"
        )
    return "", ""


def _signal_fault(
    signal: np.ndarray, frames: int, refuse_silence: bool
) -> tuple[str, str]:
    """Kind and sentence of what the samples show, both empty if usable."""
    if len(signal) < frames:
        problem = f"ends after {len(signal)} of {frames} samples"
        return "unreadable", problem
    if not np.isfinite(signal).all():
        return "not finite", "holds NaN or infinite samples"
    peak = float(np.abs(signal).max())
    if refuse_silence and peak < SILENT_PEAK:
        problem = f"is silent: its peak is {peak:g}, below {SILENT_PEAK:g}"
        return "silent", problem
    return "", ""
