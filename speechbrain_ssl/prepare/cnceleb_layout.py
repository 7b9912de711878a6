"""Folders and lists of CN-Celeb1 and 2, as published."""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import SUFFIXES, files_below
from speechbrain_ssl.dataio.trials import AUDIO
from speechbrain_ssl.prepare.scan import version_of

FIRST = "dev/dev.lst"  # training speakers of CN-Celeb1, and its mark
SECOND = "spk.lst"  # speakers of CN-Celeb2, and its mark
TRIALS = "eval/lists/trials.lst"  # MODEL test/UTTERANCE.wav LABEL
JOINED = "eval/lists/enroll.lst"  # MODEL enroll/MODEL.wav
CUTS = "eval/lists/enroll.map"  # MODEL SPEAKER/UTTERANCE.wav ..., below data
NAME = re.compile(
    r"(?:test/)?(?P<speaker>[^/-]+)[/-]"
    r"(?P<genre>[^/-]+)-(?P<session>[^/-]+)-[^/-]+"
)
LAYOUT = (
    "CN-Celeb1 is a folder with data/SPEAKER/GENRE-SESSION-NUMBER.flac (or "
    f".wav), {FIRST}, {TRIALS}, {JOINED}, {CUTS}, eval/enroll and eval/test; "
    f"CN-Celeb2 one with data and {SECOND}."
)

logger = get_logger(__name__)


class Recording(NamedTuple):
    """A file, named as in the lists of the corpus, without suffix."""

    name: str  # SPEAKER/GENRE-SESSION-NUMBER, or below eval
    path: str
    version: str  # size and time of the last change

    @property
    def speaker(self) -> str:
        """Also that of an enrolment model."""
        return re.split("[/-]", re.sub("^(test|enroll)/", "", self.name))[0]

    @property
    def genre(self) -> str:
        """As in the file's name, e.g. singing."""
        return genre_of(self.name)

    @property
    def session(self) -> str:
        """The video, e.g. id00000/singing-01."""
        return self.name.rpartition("-")[0]


class Layout(NamedTuple):
    """What the folders hold, before any audio is opened."""

    training: dict[str, list[Recording]]  # list of speakers to their files
    evaluation: dict[str, Recording]  # by name: test, enrolment, its cuts
    lists: dict[str, Path]  # by their place in CN-Celeb1
    digest: str  # of the lists


def find_cnceleb(roots: Sequence[str], lists: Sequence[str]) -> Layout:
    """Training and evaluation files of CN-Celeb1 and, where given, 2.

    Arguments
    ---------
    roots : sequence of str
        One folder of CN-Celeb1, at most one of CN-Celeb2.
    lists : sequence of str
        Evaluation lists that are needed, of `TRIALS`, `JOINED` and `CUTS`.

    Returns
    -------
    Layout
        Training files sorted by speaker and genre.

    Raises
    ------
    BadInputError
        If a folder, a list or the audio of a listed speaker is missing.
    """
    first, second = _told_apart(roots, lists)
    parts = [(first, FIRST)] + [(root, SECOND) for root in second]
    training, problems = {}, []
    for root, place in parts:
        wanted = set((root / place).read_text(encoding="utf-8").split())
        found = _audio_below(root / "data", wanted)
        if root == first:
            data = found
        recordings = [item for item in found.values() if item.speaker in wanted]
        missing = wanted - {item.speaker for item in recordings}
        problems += [
            f"{root / place} names '{speaker}'; there is no audio at "
            f"{root / 'data' / speaker}/"
            for speaker in sorted(missing)
        ]
        training[place] = sorted(recordings, key=_order)
    speakers = [{item.speaker for item in items} for items in training.values()]
    if second:
        problems += [
            f"'{speaker}' is a training speaker of both corpora"
            for speaker in sorted(set.intersection(*speakers))
        ]
    refuse("data_folder", problems, LAYOUT)
    trained = {item.name for item in training[FIRST]}
    evaluation = _audio_below(first / "eval")
    evaluation.update(
        (name, item) for name, item in data.items() if name not in trained
    )
    places = {place: first / place for place in lists}
    contents = hashlib.sha256()
    for path in [*(root / place for root, place in parts), *places.values()]:
        contents.update(path.read_bytes())
    return Layout(training, evaluation, places, contents.hexdigest())


def read_cnceleb_trials(path: Path) -> pd.DataFrame:
    """Trials of lines 'MODEL test/UTTERANCE.wav LABEL'.

    Arguments
    ---------
    path : pathlib.Path
        Text file in UTF-8.

    Returns
    -------
    pandas.DataFrame
        `enrol` and `test` without suffix, as categories, so that 3.5 million
        trials are some 20 MB, and `target`, 0 or 1.

    Raises
    ------
    BadInputError
        If a line has another form.

    Example
    -------
    >>> path = Path(f"{getfixture('tmpdir')}/trials.lst")
    >>> _ = path.write_text("id8-enroll test/id8-play-01-001.wav 1\\n")
    >>> read_cnceleb_trials(path).values.tolist()
    [['id8-enroll', 'test/id8-play-01-001', 1]]
    """
    advice = "A trial is 'MODEL test/UTTERANCE.wav LABEL'; use trials.lst."
    names = ["enrol", "test", "target", "surplus"]
    try:
        trials = pd.read_csv(
            path,
            sep=r"\s+",
            names=names,
            dtype={**dict.fromkeys(names, "category"), "target": str},
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
        )
    except ValueError as error:  # of the parser or the decoder
        refuse(str(path), [f"it cannot be read ({error})"], advice)
    faulty = ~trials["target"].isin(["0", "1"]) | trials["surplus"].notna()
    problems = [
        f"trial {row + 1} is '{' '.join(map(str, trials.loc[row].dropna()))}'"
        for row in trials.index[faulty]
    ]
    problems += [] if len(trials) else ["it has no trials"]
    refuse(str(path), problems, advice)
    trials["test"] = trials["test"].map(without_suffix)
    trials["target"] = trials["target"].astype("int64")
    return trials.drop(columns="surplus")


def read_models(path: Path) -> dict[str, list[str]]:
    """Files of every enrolment model, without suffix.

    Arguments
    ---------
    path : pathlib.Path
        enroll.lst (one file a model, below eval) or enroll.map (several,
        below data), lines 'MODEL FILE ...'. A model may be named without
        '-enroll', as a speaker.

    Returns
    -------
    dict
        Model to names.

    Raises
    ------
    BadInputError
        If a model has no file or comes twice.

    Example
    -------
    >>> path = Path(f"{getfixture('tmpdir')}/enroll.map")
    >>> _ = path.write_text(
    ...     "id8-enroll id8/play-01-001.wav id8/vlog-01-001.wav"
    ... )
    >>> read_models(path)
    {'id8-enroll': ['id8/play-01-001', 'id8/vlog-01-001']}
    """
    models, problems = {}, []
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        model, *files = line.split() or [""]
        if model:
            model = model.removesuffix("-enroll") + "-enroll"
            if not files or model in models:
                problems.append(f"line {number} is '{line.strip()}'")
            models[model] = [without_suffix(file) for file in files]
    advice = "A line is 'MODEL FILE ...', one a model."
    refuse(str(path), problems, advice)
    return models


def without_suffix(name: str) -> str:
    """Name of a WAV or FLAC file without its suffix.

    Example
    -------
    >>> without_suffix("test/id8-play-01-001.wav")
    'test/id8-play-01-001'
    """
    return AUDIO.sub("", name)


def genre_of(name: str) -> str:
    """Genre in the name of a recording; `unknown` in names of another form.

    Example
    -------
    >>> genre_of("id8/live_broadcast-01-001")
    'live_broadcast'
    """
    match = NAME.fullmatch(name)
    return match["genre"] if match else "unknown"


def _told_apart(
    roots: Sequence[str], lists: Sequence[str]
) -> tuple[Path, list[Path]]:
    """The folder of CN-Celeb1 and that of CN-Celeb2, if any."""
    problems = []
    kinds: dict[str, list[Path]] = {FIRST: [], SECOND: []}
    needed = {FIRST: ["eval", *lists], SECOND: []}
    for root in map(Path, roots):
        marks = [place for place in kinds if (root / place).is_file()]
        if not root.is_dir():
            problems.append(f"'{root}' is not a folder that exists")
        elif not marks:
            inside = sorted(path.name for path in root.iterdir())
            shown = ", ".join(inside[:3]) + (", ..." if inside[3:] else "")
            problems.append(
                f"'{root}' has neither {FIRST} nor {SECOND}; it holds: "
                f"{shown or 'nothing'}"
            )
        for place in marks[:1]:
            kinds[place].append(root)
            problems += [
                f"'{root}' has no {name}"
                for name in ["data", *needed[place]]
                if not (root / name).exists()
            ]
    counts = [len(found) for found in kinds.values()]
    if not problems and (counts[0] != 1 or counts[1] > 1):
        problems.append(
            f"{counts[0]} folders of CN-Celeb1 and {counts[1]} of CN-Celeb2 "
            "are given; one and at most one are expected"
        )
    refuse("data_folder", problems, LAYOUT)
    return kinds[FIRST][0], kinds[SECOND]


def _audio_below(folder: Path, named: Iterable[str] = ()) -> dict:
    """Recordings by name; those of `named` speakers have the corpus' form."""
    found, problems, strays = {}, [], []
    try:
        for names, entry in files_below(folder):
            if not entry.name.lower().endswith(SUFFIXES):
                continue
            name = os.path.splitext("/".join(names))[0]
            if names[0] in named and not NAME.fullmatch(name):
                strays.append(entry.path)
                continue
            if name in found:
                problems.append(
                    f"'{entry.path}' and '{found[name].path}' are the same "
                    "recording"
                )
            found[name] = Recording(name, entry.path, version_of(entry))
    except PermissionError as error:
        refuse("data_folder", [f"'{error.filename}' may not be read"], LAYOUT)
    refuse("data_folder", problems, "Keep one of each.")
    if strays:
        logger.warning(
            "%d audio files are not named SPEAKER/GENRE-SESSION-NUMBER and "
            "are left out, e.g. '%s'",
            len(strays),
            min(strays),
        )
    return found


def _order(item: Recording) -> tuple[str, str, str]:
    """Speakers, their genres, their recordings."""
    return item.speaker, item.genre, item.name
