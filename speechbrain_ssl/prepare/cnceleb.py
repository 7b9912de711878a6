"""CN-Celeb 1 and 2: manifests, enrolment models and the eval trials.

Fan et al., "CN-Celeb: a challenging Chinese speaker recognition dataset",
2020, arXiv:1911.01799, and Li et al., "CN-Celeb: multi-genre speaker
recognition", 2022, arXiv:2012.12468; openslr.org/82. Speech of celebrities in
eleven genres. Recordings are found by the published folders and lists.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Optional, Union

import pandas as pd
from speechbrain.utils.logger import get_logger

from speechbrain_ssl.checks import refuse, summarise
from speechbrain_ssl.dataio.manifest import write_manifest
from speechbrain_ssl.dataio.trials import write_trials
from speechbrain_ssl.prepare.cnceleb_layout import (
    FIRST,
    SECOND,
    TRIALS,
    Layout,
    find_cnceleb,
    read_cnceleb_trials,
)
from speechbrain_ssl.prepare.cnceleb_tables import (
    ENROLMENTS,
    Settings,
    training_rows,
    verification_tables,
)
from speechbrain_ssl.prepare.joining import write_joined
from speechbrain_ssl.prepare.outputs import (
    Folder,
    data_folders,
    is_done,
    refuse_unwritable,
    write_together,
    wrong_choices,
)
from speechbrain_ssl.prepare.scan import fingerprint
from speechbrain_ssl.prepare.tables import divide

SPEAKERS = {FIRST: 797, SECOND: 1996}  # of the published corpora
EVALUATION = {
    "models": 196,
    "test utterances": 17777,
    "trials": 3484292,
    "target trials": 17755,
}
MANIFESTS = ("train", "dev", "enrol", "test")
FILES = (*(f"{name}.csv" for name in MANIFESTS), "models.csv", "trials.txt")

logger = get_logger(__name__)


def prepare_cnceleb(
    data_folder: Union[Folder, Sequence[Folder]],
    save_folder: Folder,
    split_ratio: Sequence[float] = (99, 1),
    split_speaker: bool = True,
    join_seconds: float = 0.0,
    joined_folder: Optional[Folder] = None,
    shortest_seconds: float = 0.0,
    enrolment: str = "joined",
    full_corpus: bool = True,
    sample_rate: int = 16000,
    seed: int = 1234,
    check_samples: bool = False,
    bad_files: str = "stop",
    most_bad: float = 0.01,
    workers: Optional[int] = None,
) -> None:
    """Write train, dev, enrol and test manifests, models and trials.

    Training and development speakers are those of CN-Celeb1's dev.lst and all
    of CN-Celeb2: 797 + 1996 = 2793. The manifests have the columns `genre`
    and, but for evaluation, `session` (a video). `models.csv` has the columns
    model and ID, one row a cut of an enrolment model; `trials.txt` has the
    lines 'label model testID'. As in `prepare_voxceleb`, only headers are
    read unless `check_samples`, everything or nothing is replaced and the
    same preparation is not repeated.

    Arguments
    ---------
    data_folder : str, pathlib.Path or sequence of these
        The folders of CN-Celeb1 and CN-Celeb2 (the second may be missing) as
        a list or separated by commas, FLAC or WAV.
    save_folder : str or pathlib.Path
        Where the manifests go; made when missing.
    split_ratio : sequence of two float
        Shares of train and dev, e.g. [99, 1].
    split_speaker : bool
        Whether dev has other speakers than train, rather than other files:
        then all speakers stay in train.
    join_seconds : float
        Shorter training recordings of a speaker and genre are joined, in the
        order of their names, to at least this length; 0 joins none.
    joined_folder : str or pathlib.Path, optional
        Where joined recordings go, by default `joined` in `save_folder`.
        Those that are there are not written again, so that several runs can
        share a folder.
    shortest_seconds : float
        Shorter training rows, after joining, are left out.
    enrolment : str
        "joined": a model is its one official file. "cuts": it is the
        recordings that this file was made of, several.
    full_corpus : bool
        Whether the numbers of speakers, models and trials must be those
        published; False goes on with others and warns.
    sample_rate : int
        Of every file, in Hz.
    seed : int
        Of the division into train and dev.
    check_samples, bad_files, most_bad, workers
        See `prepare_voxceleb`.

    Raises
    ------
    BadInputError
        If an argument, the layout, a list or too many audio files cannot be
        used, or a number differs from the published one.
    """
    save_folder = Path(save_folder)
    settings = Settings(
        roots=data_folders(data_folder),
        split_ratio=list(split_ratio),
        split_speaker=split_speaker,
        join_seconds=join_seconds,
        joined_folder=str(joined_folder or save_folder / "joined"),
        shortest_seconds=shortest_seconds,
        enrolment=enrolment,
        full_corpus=full_corpus,
        sample_rate=sample_rate,
        seed=seed,
        check_samples=check_samples,
        bad_files=bad_files,
        most_bad=most_bad,
        workers=workers,
    )
    _refuse_settings(settings, save_folder)
    lists = (TRIALS, ENROLMENTS[enrolment])
    layout = find_cnceleb(settings.roots, lists)
    record = _record(settings, layout)
    if is_done(save_folder, FILES, record) and _joined_are_there(save_folder):
        logger.info("%s is already prepared.", save_folder)
        return
    refuse_unwritable(save_folder)
    trials = read_cnceleb_trials(layout.lists[TRIALS])
    _check_counts(layout, trials, settings)
    tables, models = verification_tables(layout, trials, settings)
    train, joined = training_rows(layout, settings)
    unit = "spk_id" if split_speaker else "wav"
    tables.update(divide(train, unit, settings.split_ratio, seed))
    write_joined(joined, sample_rate, workers)
    writers = {
        f"{name}.csv": partial(write_manifest, tables[name])
        for name in MANIFESTS
    }
    writers["models.csv"] = partial(models.to_csv, index=False)
    writers["trials.txt"] = partial(write_trials, trials)
    write_together(writers, record, save_folder)
    for name in MANIFESTS:
        logger.info(
            "%s: %d rows of %d speakers, %.1f hours.",
            save_folder / f"{name}.csv",
            len(tables[name]),
            tables[name]["spk_id"].nunique(),
            tables[name]["duration"].sum() / 3600,
        )


def _refuse_settings(settings: Settings, save_folder: Path) -> None:
    """Refuse arguments that contradict the signature or each other."""
    s = settings
    wrong = {
        "data_folder names no root": not s.roots,
        f"split_ratio is {s.split_ratio}; train and dev each need a share": (
            len(s.split_ratio) == 2 and 0 in s.split_ratio
        ),
        f"join_seconds is {s.join_seconds}; it is 0 or more": (
            s.join_seconds < 0
        ),
        f"enrolment is '{s.enrolment}'; it is 'joined' or 'cuts'": (
            s.enrolment not in ENROLMENTS
        ),
        **wrong_choices(s.split_ratio, s.bad_files, s.most_bad),
    }
    for root in s.roots:
        audio = [(Path(root) / name).resolve() for name in ("data", "eval")]
        for folder in (save_folder, Path(s.joined_folder)):
            problem = f"'{folder}' is to be written, among the audio of {root}"
            above = [folder.resolve(), *folder.resolve().parents]
            wrong[problem] = any(place in above for place in audio)
    problems = [problem for problem, is_wrong in wrong.items() if is_wrong]
    refuse("prepare_cnceleb", problems, "Change these arguments.")


def _record(settings: Settings, layout: Layout) -> dict:
    """Everything that the files depend on."""
    arguments = settings._asdict()
    del arguments["workers"]
    files = [item for items in layout.training.values() for item in items]
    files += layout.evaluation.values()
    return {
        "arguments": arguments,
        "files": fingerprint(files),
        "lists": layout.digest,
    }


def _joined_are_there(save_folder: Path) -> bool:
    """Whether no file of the training manifests was removed since."""
    files = [
        pd.read_csv(save_folder / name, usecols=["wav"])["wav"]
        for name in ("train.csv", "dev.csv")
    ]
    return all(Path(path).is_file() for path in pd.concat(files))


def _check_counts(
    layout: Layout, trials: pd.DataFrame, settings: Settings
) -> None:
    """Compare with the published numbers."""
    found = {
        f"speakers of {place}": (
            len({item.speaker for item in items}),
            SPEAKERS[place],
        )
        for place, items in layout.training.items()
    }
    counts = (
        trials["enrol"].nunique(),
        trials["test"].nunique(),
        len(trials),
        int(trials["target"].sum()),
    )
    for (name, published), count in zip(EVALUATION.items(), counts):
        found[f"{name} of {TRIALS}"] = (count, published)
    problems = [
        f"there are {count} {name}; {published} are published"
        for name, (count, published) in found.items()
        if count != published
    ]
    if problems and not settings.full_corpus:
        logger.warning("This is not all of CN-Celeb: %s", summarise(problems))
        return
    refuse(
        "CN-Celeb",
        problems,
        "Complete the corpus or its lists, or go on with others by "
        "full_corpus=False.",
    )
    if SECOND not in layout.training:
        logger.warning(
            "Training speakers are the %d of CN-Celeb1; give the folder of "
            "CN-Celeb2 as well for all %d.",
            SPEAKERS[FIRST],
            sum(SPEAKERS.values()),
        )
