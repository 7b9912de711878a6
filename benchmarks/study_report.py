"""What a study found: JSON, tables and pictures, and the README's copy.

The tables are made of study.json alone, so that they can be compared with it
(tests/test_study.py).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done, write_json
from speechbrain_ssl.dataio.scores import read_scores
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation.plots import plot_det, plot_lines

LOG_MEL = "log-mel statistics"
UNTRAINED = "-"  # in place of a training corpus
BEGIN, END = "<!-- study -->", "<!-- end of study -->"
MAIN = "<!-- methods with every seed -->"  # after BEGIN: no ablations


def collect(settings: dict, grid: list) -> dict[str, Any]:
    """Figures of all finished runs, ready for JSON."""
    out, runs = Path(settings["output_folder"]), []
    for training in grid:
        paths = {
            corpus: training.folder / "trials" / corpus / "metrics.json"
            for corpus in settings["corpora"]
        }
        if training.finished and all(p.is_file() for p in paths.values()):
            done = training.finished
            run = {
                "method": training.method,
                "trained_on": training.corpus,
                "ablation": training.ablation,
                "seed": training.seed,
                "minutes": done.get("minutes"),
                "best_epoch": done.get("best_epoch"),
            }
            runs.append({**run, "trials": _figures(paths)})
    paths = {
        corpus: out / "log_mel" / corpus / "metrics.json"
        for corpus in settings["corpora"]
    }
    runs.append(
        {
            "method": LOG_MEL,
            "trained_on": UNTRAINED,
            "ablation": False,
            "minutes": None,
            "trials": _figures(paths),
        }
    )
    return {"corpora": list(settings["corpora"]), "runs": runs}


def _figures(paths):
    """EER, its interval and minDCF in % by corpus and condition."""
    found = {}
    for corpus, path in paths.items():
        trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
        found[corpus] = {
            condition: {
                "eer": round(100 * figures["eer"], 2),
                "interval": [
                    round(100 * edge, 2) for edge in figures["intervals"]["eer"]
                ],
                "min_dcf": round(figures["min_dcf"], 3),
            }
            for condition, figures in trials.items()
        }
    return found


def tables(study: dict[str, Any]) -> str:
    """Two Markdown tables: clean trials, and with an interfering talker."""
    corpora = study["corpora"]
    groups: dict[tuple, list] = {}
    for run in study["runs"]:
        key = run["trained_on"], run["method"]
        groups.setdefault(key, []).append(run)
    order = [*corpora, UNTRAINED]  # of training, then as in the study
    groups = {
        key: groups[key]
        for key in sorted(groups, key=lambda k: order.index(k[0]))
    }
    heads = [f"{corpus} trials" for corpus in corpora]
    clean = _head("trained on", "method", *heads, "seeds", "minutes")
    for (trained_on, method), runs in groups.items():
        cells = [_cell(runs, corpus, "clean") for corpus in corpora]
        minutes = [run["minutes"] for run in runs if run["minutes"]]
        spent = f"{np.mean(minutes):.0f}" if minutes else "-"
        seeds = len(runs) if minutes else "-"
        clean.append(_row(trained_on, method, *cells, seeds, spent))
    conditions = list(study["runs"][0]["trials"][corpora[0]])
    trained = {key[0] for key in groups} - {UNTRAINED}
    noisy = _head("trials of", "method", *map(_level, conditions))
    for corpus in corpora:
        for (trained_on, method), runs in groups.items():
            if corpus in trained and trained_on in (corpus, UNTRAINED):
                cells = [_cell(runs, corpus, name) for name in conditions]
                noisy.append(_row(corpus, method, *cells))
    return "\n".join([*clean, "", *noisy])


def _head(*names):
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def _level(condition):
    """Heading of a condition: sir_10 is 10 dB."""
    name, _, decibels = condition.partition("_")
    return f"{decibels} dB" if decibels else name


def _cell(runs, corpus, condition):
    """Mean over seeds, deviation, and the mean edges of the interval."""
    figures = [run["trials"][corpus][condition] for run in runs]
    rates = [part["eer"] for part in figures]
    low, high = np.mean([part["interval"] for part in figures], axis=0)
    spread = f" ± {np.std(rates, ddof=1):.1f}" if len(rates) > 1 else ""
    return f"{np.mean(rates):.1f}{spread} ({low:.1f}–{high:.1f})"


def report(settings: dict, grid: list) -> None:
    """Write study.json, study.md and, of what is no ablation, pictures."""
    out = Path(settings["output_folder"])
    study = collect(settings, grid)
    write_json(study, out / "study.json")
    with replaced_when_done(out / "study.md") as temporary:
        temporary.write_text(tables(study) + "\n", encoding="utf-8")
    levels, systems = _levels(study), _detections(settings, grid)
    if levels:  # not before the first method that is no ablation
        plot_lines(
            levels,
            out / "levels.png",
            "interfering talker (signal-to-interference ratio)",
            "EER (%)",
        )
    if systems:
        plot_det(systems, out / "det.png")


def _levels(study):
    """Mean EER by condition: a panel a corpus, a line a method."""
    panels: dict[str, dict] = {}
    for run in study["runs"]:
        if run["ablation"]:
            continue
        for corpus, conditions in run["trials"].items():
            if run["trained_on"] in (corpus, UNTRAINED):
                panel = panels.setdefault(f"trials of {corpus}", {})
                panel.setdefault(run["method"], []).append(
                    {
                        _level(name): part["eer"]
                        for name, part in conditions.items()
                    }
                )
    return {
        title: {
            method: {
                name: float(np.mean([run[name] for run in runs]))
                for name in runs[0]
            }
            for method, runs in methods.items()
        }
        for title, methods in panels.items()
        if len(methods) > 1  # more than the statistics
    }


def _detections(settings, grid):
    """Scores of the first seed of each method on its own corpus, clean."""
    systems = {}
    for training in grid:
        name = f"{training.method}, {training.corpus}"
        path = training.folder / "trials" / training.corpus / "scores/clean.txt"
        wanted = not training.ablation and name not in systems
        if wanted and path.is_file():
            folder = Path(settings["corpora"][training.corpus]["folder"])
            trials = read_trials(folder / "trials.txt")
            targets = trials["target"].to_numpy()
            systems[name] = read_scores(path, trials), targets
    return systems


def with_tables(text: str, study: dict[str, Any]) -> str:
    """A page with the tables between its two marks."""
    before, rest = text.split(BEGIN)
    shown, after = rest.split(END)
    begin = BEGIN
    if shown.startswith(f"\n{MAIN}"):
        begin = f"{BEGIN}\n{MAIN}"
        runs = [run for run in study["runs"] if not run["ablation"]]
        study = {**study, "runs": runs}
    return f"{before}{begin}\n{tables(study)}\n{END}{after}"


def publish(out: Path, repository: Path) -> None:
    """Copy the report into docs/ and the tables into the pages.

    Raises BadInputError where a file of the report is missing; the pages are
    as they were then.
    """
    docs = repository / "docs"
    names = "study.json", "levels.png", "det.png"
    refuse(
        "the study to publish",
        [f"no {out / name}" for name in names if not (out / name).is_file()],
        "Of ablations alone no picture is drawn: finish another method.",
    )
    for name in names:
        shutil.copyfile(out / name, docs / name)
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    for page in (repository / "README.md", docs / "study.md"):
        text = with_tables(page.read_text(encoding="utf-8"), study)
        with replaced_when_done(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
