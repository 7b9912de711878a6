"""A grid of trainings, each verified on several corpora; restartable.

python benchmarks/study.py benchmarks/study.yaml --data_folder=DIR [--key=value ...]

Each training is a `train.py` run in a folder of its own below
`output_folder`/runs and each verification a `verify.py` run in that. What is
finished is not done again, what was killed goes on. Ends in study.json,
study.md and pictures (see study_report.py).
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Optional

import torch
from study_report import LOG_MEL, publish, report

from speechbrain_ssl.checks import BadInputError, check_sizes, refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation.baseline import LogMelStatistics
from speechbrain_ssl.evaluation.intervals import speaker_intervals
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    verify,
    without_scores,
)
from speechbrain_ssl.experiment import INTERFERENCE_SEED, tested
from speechbrain_ssl.prepare.corpus import prepare_corpus
from speechbrain_ssl.prepare.voxceleb import prepare_voxceleb
from speechbrain_ssl.settings import load

REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = (
    "data_folder",
    "output_folder",
    "publish",
    "at_once",
    "seeds",
    "sirs_db",
    "bootstrap",
    "corpora",
    "methods",
)


class Training(NamedTuple):
    """One run of train.py and where it goes."""

    method: str
    corpus: str
    seed: int
    folder: Path
    command: list[str]
    trained: Path  # where its metrics are; another run's, if it trains none
    model: Path  # what is verified
    verified: list[str]  # further options of that
    start: Optional[Path]  # another run's folder, exported first
    ablation: bool  # named so or of fewer seeds than others, not in pictures

    @property
    def finished(self) -> Optional[dict]:
        """The metrics of its training, where there are any."""
        path = self.trained / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else None


def trainings(settings: dict) -> list[Training]:
    """All of the grid, the first seed of every method first."""
    grid = []
    for place, seed in enumerate(settings["seeds"]):
        for method, how in settings["methods"].items():
            for corpus, more in how["on"].items():
                if place < how.get("seeds", 1):
                    overrides = {**how.get("with", {}), **(more or {})}
                    grid.append(
                        _training(
                            settings, how, method, corpus, seed, overrides
                        )
                    )
    return grid


def _training(settings, how, method, corpus, seed, overrides):
    name = _name(method, corpus, seed)
    runs = Path(settings["output_folder"]).resolve() / "runs"
    data = Path(settings["corpora"][corpus]["folder"])
    trained = runs / _name(how.get("of", method), corpus, seed)
    most = max(one.get("seeds", 1) for one in settings["methods"].values())
    start = None
    if "start" in how:
        start = runs / _name(how["start"], corpus, seed)
        path = start / "exported" / "embedding_model.ckpt"
        overrides["embedding_weights"] = path
    given = {
        "seed": seed,
        "data_folder": data,
        "test_trials": data / "trials.txt",
        "output_folder": runs / name,
        **overrides,
    }
    values = [f"--{key}={_text(value)}" for key, value in given.items()]
    values = [value.replace("{seed}", str(seed)) for value in values]
    return Training(
        method,
        corpus,
        seed,
        runs / name,
        ["train.py", how["yaml"], *values] if "yaml" in how else [],
        trained,
        trained / how.get("model", ""),
        [f"--{key}={value}" for key, value in how.get("verify", {}).items()],
        start,
        how.get("ablation", how.get("seeds", 1) < most),
    )


def _name(method, corpus, seed):
    name = f"{method}-{corpus}-{seed}"
    return name.replace(", ", "-").replace(" ", "_")


def _text(value):
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(str, value))}]"
    return value


def interferers(settings: dict) -> dict[str, Path]:
    """Manifest of the interfering talkers of each corpus."""
    prepared = Path(settings["output_folder"]).resolve() / "prepared"
    corpora = settings["corpora"]
    for corpus in {how["interferers"] for how in corpora.values()}:
        folder = Path(corpora[corpus]["folder"])
        trials = folder / "trials.txt"
        prepare_corpus(prepared / corpus, str(folder), str(trials))
    return {
        corpus: prepared / how["interferers"] / "dev.csv"
        for corpus, how in corpora.items()
    }


def verification(settings, training, corpus, pool):
    """The verify.py command of a training on the trials of a corpus."""
    folder = Path(settings["corpora"][corpus]["folder"])
    return [
        "verify.py",
        "hparams/verify.yaml",
        f"--source={training.model}",
        f"--trials={folder / 'trials.txt'}",
        f"--data_folder={folder}",
        f"--output_folder={training.folder / 'trials' / corpus}",
        f"--sirs_db={_text(settings['sirs_db'])}",
        f"--interferers={pool}",
        f"--bootstrap={settings['bootstrap']}",
        *training.verified,
    ]


def run(command: list[str], folder: Path) -> bool:
    """Run a script of the repository, its output in a file beside its folder.

    A folder that another command made is refused: a grid that changed must
    not pass off old runs as new ones.
    """
    note, log = _beside(folder, ".json"), _beside(folder, ".log")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made_by = json.loads(note.read_text()) if note.is_file() else None
    if made_by != command and (made_by or folder.exists()):
        problem = f"it was made by other settings ({note.name})"
        refuse(str(folder), [problem], "Remove the folder and that file.")
    write_json(command, note)
    if (folder / "metrics.json").is_file():
        return True
    return _called(command, log)


def _beside(folder, suffix):
    """A folder's name may have a dot, so not `with_suffix`."""
    return folder.with_name(folder.name + suffix)


def exported(folder: Path) -> bool:
    """Export a run as a model folder, for the weights to start from."""
    out = folder / "exported"
    if out.is_dir():
        return True
    command = ["-m", "speechbrain_ssl.cli", "export", str(folder)]
    command += ["--to", str(out), "--name", f"study/{folder.name}"]
    return _called(command, _beside(folder, ".export.log"))


def _called(command, log):
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        print(f"failed: {' '.join(command)}\n  see {log}", flush=True)
    return done.returncode == 0


def baseline(settings, corpus, pool):
    """Log-mel statistics on the trials of a corpus, without training."""
    out = Path(settings["output_folder"]).resolve() / "log_mel" / corpus
    if (out / "metrics.json").is_file():
        return
    folder = Path(settings["corpora"][corpus]["folder"])
    path = str(folder / "trials.txt")
    prepare_voxceleb(str(folder), out / "manifests", path, splits=["test"])
    trials = TrialList(
        read_trials(path),
        tested(out / "manifests"),
        pool=read_manifest(pool),
        sirs_db=settings["sirs_db"],
        seed=INTERFERENCE_SEED,
    )
    rows = trials.rows["spk_id"].to_numpy()
    speakers = rows[trials.enrol_rows], rows[trials.tested][trials.test_rows]
    model, device = LogMelStatistics(), torch.device("cpu")
    figures = verify(model, trials, device, out / "scores", LOG_MEL)
    targets = trials.trials["target"].to_numpy()
    for condition in figures.values():
        condition["intervals"] = speaker_intervals(
            condition["scores"],
            targets,
            *speakers,
            samples=settings["bootstrap"],
        )
    metrics = {"trials": without_scores(figures)}
    write_json(metrics, out / "metrics.json")


def time_left(grid: list[Training], at_once: int) -> str:
    """Of the trainings that are not finished, from those that are."""
    left = [t for t in grid if t.command and t.finished is None]
    known = [t.finished.get("minutes") for t in grid if t.finished]
    known = [minutes for minutes in known if minutes]
    if not known:
        return f"{len(left)} trainings left"
    hours = len(left) * sum(known) / len(known) / 60 / at_once
    return f"{len(left)} trainings left, about {hours:.1f} hours"


def study(settings: dict) -> bool:
    """Run what is missing, then report; whether all of it worked."""
    at_once, tasks, lock = settings["at_once"], {}, Lock()
    check_sizes(at_once=(at_once >= 1, at_once, "1 or more"))
    grid, pools = trainings(settings), interferers(settings)
    for corpus, pool in pools.items():
        baseline(settings, corpus, pool)
    if at_once > 1:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def finish(training, number, before):
        if before is not None:
            before.result()
        left = time_left(grid, at_once)
        place = f"[{number}/{len(grid)}]"
        print(f"{place} {training.folder.name}; {left}", flush=True)
        worked = trained(training)
        for corpus, pool in pools.items():
            if worked:
                command = verification(settings, training, corpus, pool)
                out = training.folder / "trials" / corpus
                worked = run(command, out)
        with lock:
            report(settings, grid)
        return worked

    with ThreadPoolExecutor(at_once) as workers:
        for number, training in enumerate(grid, start=1):
            before = tasks.get(training.start or training.trained)
            task = workers.submit(finish, training, number, before)
            tasks[training.folder] = task
        try:
            done = sum(task.result() for task in tasks.values())
        except BaseException:  # such as Ctrl-C: start no further one
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    if settings["publish"]:
        publish(Path(settings["output_folder"]), REPOSITORY)
    print(f"{done} of {len(grid)} trainings are in the tables")
    return done == len(grid)


def trained(training: Training) -> bool:
    """Train it, if it has a training of its own and is not finished."""
    if not training.command:
        return training.finished is not None
    if training.start is not None and not exported(training.start):
        return False
    return run(training.command, training.folder)


def main(arguments: list[str]) -> int:
    """Run the study of the YAML named first."""
    try:
        return not study(load(arguments, KEYS).hparams)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
