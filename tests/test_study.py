"""The study: its grid, its restart, and its tables in the README."""

import json
import sys

import pytest
from conftest import REPOSITORY

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.settings import load

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import study
import study_report

YAML = str(REPOSITORY / "benchmarks" / "study.yaml")


@pytest.fixture
def settings(tmp_path):
    given = [f"--data_folder={tmp_path}", f"--output_folder={tmp_path / 'out'}"]
    return load([YAML, *given], study.KEYS).hparams


def test_every_training_names_a_yaml_and_keys_that_exist(settings):
    grid = study.trainings(settings)
    assert len({training.folder for training in grid}) == len(grid) >= 30
    own = [training for training in grid if training.command]
    assert {training.trained for training in own} == {
        training.trained for training in grid
    }
    for training in own:
        assert training.command[0] == "train.py"
        text = (REPOSITORY / training.command[1]).read_text()
        for value in training.command[2:]:
            key = value[2:].split("=")[0]
            assert f"\n{key}:" in text, (training.method, key)


def test_the_first_seed_of_every_method_comes_first(settings):
    seeds = [training.seed for training in study.trainings(settings)]
    assert seeds == sorted(seeds, key=settings["seeds"].index)
    methods = {
        t.method for t in study.trainings(settings) if t.seed == seeds[0]
    }
    assert methods == set(settings["methods"])


def test_pictures_show_the_methods_of_most_seeds(settings):
    grid = study.trainings(settings)
    shown = {t.method for t in grid if not t.ablation}
    assert {"CSC", "AAM"} <= shown < {t.method for t in grid}
    for how in settings["methods"].values():
        how.pop("seeds", None)
    named = {n for n, how in settings["methods"].items() if "ablation" in how}
    grid = study.trainings(settings)
    assert named and {t.method for t in grid if t.ablation} == named


def test_finished_runs_are_skipped_and_changed_ones_refused(tmp_path):
    folder = tmp_path / "runs" / "a"
    missing = ["no_such_script.py", "a.yaml"]
    assert not study.run(missing, folder)  # it fails: there is none
    assert "no_such_script" in folder.with_suffix(".log").read_text()
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    assert study.run(missing, folder)
    with pytest.raises(BadInputError, match="made by other settings"):
        study.run([*missing, "--seed=2"], folder)
    other = tmp_path / "runs" / "a.2"  # a dot is part of the name
    assert not study.run([*missing, "--seed=3"], other)
    assert (tmp_path / "runs" / "a.2.json").is_file()
    folder.with_suffix(".json").unlink()
    with pytest.raises(BadInputError, match="made by other settings"):
        study.run(missing, folder)


def test_a_run_that_failed_is_counted_and_the_others_go_on(
    settings, monkeypatch, capsys
):
    calls = []

    def run(command, folder):
        calls.append(folder.name)
        return not folder.name.startswith("CSC-lib")

    starts = []
    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr(study, "exported", lambda f: starts.append(f) or True)
    monkeypatch.setattr(study, "report", lambda *_: None)
    monkeypatch.setattr(study, "interferers", lambda _: {"emodb": "dev.csv"})
    monkeypatch.setattr(study, "baseline", lambda *_: None)
    assert not study.study(settings)
    grid = study.trainings(settings)
    failed = [t for t in grid if t.folder.name.startswith("CSC-lib")]
    assert [path.name for path in starts] == [
        "DINO-speech_commands-1234",
        "DINO-libri_mini-1234",
        "NT-Xent-libri_mini-1234",
        "SupCon-speech_commands-1234",
    ]
    untrained = [t for t in grid if not t.command]
    bad = len(failed) + len(untrained)  # which find no training of another
    assert len(calls) == 2 * len(grid) - len(failed) - 2 * len(untrained)
    assert f"{len(grid) - bad} of {len(grid)}" in capsys.readouterr().out


def test_a_training_is_verified_in_another_way(settings):
    grid = study.trainings(settings)
    name = "DINO-the_student-libri_mini-1234"
    (student,) = (t for t in grid if t.folder.name == name)
    assert not student.command and student.finished is None
    student.trained.mkdir(parents=True)
    (student.trained / "metrics.json").write_text('{"minutes": 3}')
    assert student.finished == {"minutes": 3}
    command = study.verification(settings, student, "emodb", "dev.csv")
    assert f"--source={student.folder.parent / 'DINO-libri_mini-1234'}" in (
        command
    )
    assert command[-1] == "--network=encoder"
    out = student.folder / "trials" / "emodb"
    assert f"--output_folder={out}" in command


def figures(eer, low, high):
    return {"eer": eer, "interval": [low, high], "min_dcf": 0.5}


def test_tables_give_means_spreads_and_intervals():
    runs = [
        {
            "method": "A",
            "trained_on": "one",
            "ablation": False,
            "minutes": minutes,
            "trials": {
                "one": {
                    "clean": figures(eer, eer - 1, eer + 2),
                    "sir_0": figures(20.0, 18.0, 22.0),
                },
                "two": {
                    "clean": figures(9.0, 8.0, 10.0),
                    "sir_0": figures(30.0, 28.0, 32.0),
                },
            },
        }
        for eer, minutes in ((5.0, 7.0), (8.0, 8.0))
    ]
    text = study_report.tables({"corpora": ["one", "two"], "runs": runs})
    assert text.splitlines() == [
        "| trained on | method | one trials | two trials | seeds | minutes |",
        "|---|---|---|---|---|---|",
        "| one | A | 6.5 ± 2.1 (5.5–8.5) | 9.0 ± 0.0 (8.0–10.0) | 2 | 8 |",
        "",
        "| trials of | method | clean | 0 dB |",
        "|---|---|---|---|",
        "| one | A | 6.5 ± 2.1 (5.5–8.5) | 20.0 ± 0.0 (18.0–22.0) |",
    ]


def test_a_study_that_has_ablations_alone_so_far_reports_them(
    settings, monkeypatch, tmp_path
):
    settings["output_folder"] = str(tmp_path)
    grid = [t for t in study.trainings(settings) if t.ablation]
    corpora = ["libri_mini", "emodb"]
    trials = {corpus: {"clean": figures(5.0, 4.0, 6.0)} for corpus in corpora}
    run = {"method": "X", "trained_on": "emodb", "minutes": 7.0}
    runs = [{**run, "ablation": True, "trials": trials}]
    found = {"corpora": corpora, "runs": runs}
    monkeypatch.setattr(study_report, "collect", lambda *_: found)
    study_report.report(settings, grid)
    assert (
        "| emodb | X | 5.0 (4.0–6.0) |" in (tmp_path / "study.md").read_text()
    )
    assert not list(tmp_path.glob("*.png"))
    docs = tmp_path / "repository" / "docs"
    docs.mkdir(parents=True)
    with pytest.raises(BadInputError, match="no .*levels.png"):
        study_report.publish(tmp_path, docs.parent)
    assert not list(docs.iterdir())


def test_a_page_may_show_the_methods_with_every_seed_alone():
    trials = {"one": {"clean": figures(5.0, 4.0, 6.0)}}
    runs = [
        {"method": name, "trained_on": "one", "ablation": ablation}
        for name, ablation in (("A", False), ("A without", True))
    ]
    runs = [{**run, "minutes": 7.0, "trials": trials} for run in runs]
    study = {"corpora": ["one"], "runs": runs}
    whole, end = f"above\n{study_report.BEGIN}\n", study_report.END
    main = f"{whole}{study_report.MAIN}\n"
    for begin, others in ((whole, 2), (main, 0)):
        page = study_report.with_tables(f"{begin}old\n{end}\nbelow\n", study)
        assert page.startswith(f"{begin}| trained on |")
        assert page.endswith(f"|\n{end}\nbelow\n")
        assert page.count("| A without |") == others
        assert page.count("| A |") == 2
        assert study_report.with_tables(page, study) == page


TINY = """
data_folder: !PLACEHOLDER
output_folder: !PLACEHOLDER
publish: False
at_once: 2  # the chain waits for its start
seeds: [1, 2]
sirs_db: [0]
bootstrap: 20
corpora:
    small: {folder: !ref <data_folder>, interferers: small}
tiny:
    number_of_epochs: 1
    steps_per_epoch: 2
    split_ratio: [75, 25]
    workers: 0
    n_mels: 40
    embedding_dim: 16
    channels: [8, 8, 8, 8, 24]
    batch_size: 8
methods:
    NT-Xent:
        yaml: hparams/ntxent.yaml
        seeds: 2
        with: !ref <tiny>
        on: {small: {long_seconds: 0.5, short_seconds: 0.25}}
    NT-Xent, then AAM-SupCon:
        yaml: hparams/aam_supcon.yaml
        start: NT-Xent
        with: !ref <tiny>
        on: {small: {crop_seconds: 0.5}}
"""


def test_a_study_ends_in_figures_tables_and_pictures(
    small_corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "study.yaml").write_text(TINY)
    out = tmp_path / "out"
    given = [f"--data_folder={small_corpus}", f"--output_folder={out}"]
    given = [str(tmp_path / "study.yaml"), *given]
    assert study.main(given) == 0
    found = json.loads((out / "study.json").read_text())
    names = {
        "NT-Xent": "NT-Xent-small",
        "NT-Xent, then AAM-SupCon": "NT-Xent-then_AAM-SupCon-small",
    }
    assert [run["method"] for run in found["runs"]] == [
        *names,
        "NT-Xent",
        study_report.LOG_MEL,
    ]
    chained = out / "runs" / "NT-Xent-then_AAM-SupCon-small-1.json"
    start = out / "runs" / "NT-Xent-small-1" / "exported"
    weights = f"--embedding_weights={start / 'embedding_model.ckpt'}"
    assert weights in json.loads(chained.read_text())
    for run in found["runs"]:
        folder = out / "log_mel" / "small"
        if run["method"] in names:
            folder = out / "runs" / f"{names[run['method']]}-{run['seed']}"
            folder = folder / "trials" / "small"
        metrics = json.loads((folder / "metrics.json").read_text())["trials"]
        assert list(run["trials"]["small"]) == ["clean", "sir_0"]
        for condition, figures in run["trials"]["small"].items():
            eer = 100 * metrics[condition]["eer"]
            assert figures["eer"] == pytest.approx(eer, abs=0.006)
    assert study_report.tables(found) == (out / "study.md").read_text().strip()
    for name in ("levels.png", "det.png"):
        assert (out / name).stat().st_size > 1000
    logs = {path: path.stat().st_mtime_ns for path in out.rglob("*.log")}
    assert study.main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in logs} == logs


@pytest.mark.parametrize("page", ["README.md", "docs/study.md"])
def test_the_pages_have_the_tables_of_the_published_study(page):
    published = json.loads((REPOSITORY / "docs" / "study.json").read_text())
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert study_report.with_tables(text, published) == text
    names = {run["method"] for run in published["runs"]}
    assert {"CSC", "DINO", "NT-Xent", study_report.LOG_MEL} <= names
