"""From a YAML file to a trained, verified model: what train.py runs."""

import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import (
    ddp_barrier,
    ddp_init_group,
    if_main_process,
    run_on_main,
)
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl.checks import BadInputError, nearest, refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.dataio.trials import halve, make_trials, read_trials
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.baseline import LogMelStatistics
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    table,
    verify,
    without_scores,
)
from speechbrain_ssl.prepare.voxceleb import prepare_voxceleb
from speechbrain_ssl.pretrained import Pretrained

logger = logging.getLogger(__name__)

INTERFERENCE_SEED = 20210103  # one draw of interferers for every comparison

# Top-level keys that the runner reads; others must be used by the YAML itself,
# by the Brain or by SpeechBrain.
KEYS = (
    "method",
    "seed",
    "output_folder",
    "expected_cost",
    "prepare",
    "sample_rate",
    "label_free_validation",
    "valid_sirs_db",
    "sirs_db",
    "batches",
    "examples",
    "workers",
    "modules",
    "brain",
    "opt_class",
    "number_of_epochs",
    "epoch_counter",
    "checkpointer",
)
VERIFY_KEYS = (
    "source",
    "trials",
    "data_folder",
    "output_folder",
    "sirs_db",
    "interferers",
)


class Run(NamedTuple):
    """A YAML file with its overrides, loaded.

    Arguments
    ---------
    yaml : str
        Path of the file.
    overrides : str
        Command-line overrides as YAML text.
    hparams : dict
        Loaded values.
    options : dict
        SpeechBrain's run options.
    """

    yaml: str
    overrides: str
    hparams: dict
    options: dict


def load(arguments: list[str], used: tuple[str, ...] = KEYS) -> Run:
    """Read YAML and command line; fail on every slip before work starts.

    Arguments
    ---------
    arguments : list of str
        As on the command line: YAML file, `--key=value` overrides and
        SpeechBrain's run options.
    used : tuple of str
        Top-level keys that the caller reads.

    Returns
    -------
    Run

    Raises
    ------
    BadInputError
        If the file is missing, a key is misspelt or a value cannot be used.
    """
    if not arguments or arguments[0].startswith("-"):
        refuse(
            "command line",
            ["no YAML file was given"],
            "Usage: python train.py hparams/csc.yaml [--key=value ...]",
        )
    if not Path(arguments[0]).is_file():
        near = nearest(
            Path(arguments[0]).name,
            [path.name for path in Path(arguments[0]).parent.glob("*.yaml")],
        )
        refuse(arguments[0], [f"there is no such YAML file{near}"], "Check it.")
    yaml, options, overrides = sb.parse_arguments(arguments)
    text = Path(yaml).read_text(encoding="utf-8")
    keys = re.findall(r"^([A-Za-z_]\w*):", text, flags=re.MULTILINE)
    given = re.findall(r"^([A-Za-z_]\w*):", overrides, flags=re.MULTILINE)
    refuse(
        "command line",
        [
            f"--{key} is not a key of {yaml}{nearest(key, keys)}"
            for key in given
            if key not in keys
        ],
        "Overrides replace top-level keys of the YAML.",
    )
    ddp_init_group(options)
    try:
        hparams = load_hyperpyyaml(text, overrides)
    except BadInputError:
        raise
    except Exception as error:  # whatever a constructor named in it raises
        refuse(
            str(yaml), [f"{type(error).__name__}: {error}"], "Correct the YAML."
        )
    _check_keys(yaml, text, keys, hparams, used)
    return Run(yaml, overrides, hparams, options)


def _check_keys(yaml, text, keys, hparams, used):
    missing = [key for key in used if key not in hparams]
    referred = set(re.findall(r"<([A-Za-z_]\w*)", text))
    brain = hparams.get("brain")
    needed = getattr(getattr(brain, "func", brain), "HPARAMS_NEEDED", ())
    known = {*used, *referred, *needed, *RunOptions().keys()}
    problems = [f"the key '{key}' is missing" for key in missing]
    problems += [
        f"nothing uses the key '{key}'{nearest(key, known)}"
        for key in keys
        if key not in known and not key.startswith("__")
    ]
    refuse(str(yaml), problems, "Compare with the YAMLs in hparams/.")


def claim_output_folder(run: Run) -> bool:
    """Make the output folder ours, or say that the run is complete.

    Arguments
    ---------
    run : Run
        The loaded run.

    Returns
    -------
    bool
        False when the run in the folder is complete already.

    Raises
    ------
    BadInputError
        If the folder holds a run of another method or cannot be written.
    """
    hparams = run.hparams
    folder = Path(hparams["output_folder"])
    note = folder / "run.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        refuse(
            f"output_folder {folder}",
            [f"it cannot be written: {error}"],
            "Give another one with --output_folder=DIR.",
        )
    method = hparams["method"]
    if note.is_file():
        other = json.loads(note.read_text(encoding="utf-8"))["method"]
        problem = f"it holds a run of '{other}'; this is '{method}'"
        refuse(
            f"output_folder {folder}",
            [problem] if other != method else [],
            "Give another one with --output_folder=DIR.",
        )
    metrics = folder / "metrics.json"
    if metrics.is_file():
        done = json.loads(metrics.read_text(encoding="utf-8"))["epochs"]
        if done >= hparams["number_of_epochs"]:
            print(
                f"already complete after {done} epochs: {metrics}\n"
                "Change output_folder or raise number_of_epochs to train more."
            )
            return False
    run_on_main(write_json, args=({"method": method}, note))
    return True


def train(run: Run) -> dict[str, Any]:
    """Prepare, train, verify and write what a run leaves behind.

    Arguments
    ---------
    run : Run
        The loaded run, its output folder claimed.

    Returns
    -------
    dict
        What was written to metrics.json.

    Raises
    ------
    BadInputError
        If the corpus or the YAML cannot be used.
    """
    hparams, began = run.hparams, time.time()
    folder = Path(hparams["output_folder"])
    manifests = folder / "manifests"
    print(f"{hparams['method']}: expect {hparams['expected_cost']}", flush=True)
    run_on_main(hparams["prepare"], kwargs={"save_folder": manifests})
    rows = read_manifest(manifests / "train.csv")
    dev = read_manifest(manifests / "dev.csv")
    test_trials = _test_trials(hparams, manifests, dev)
    valid_trials = _valid_trials(hparams, dev, rows)
    sampler = hparams["batches"](
        rows=rows,
        rank=int(os.environ.get("RANK", 0)),
        processes=int(os.environ.get("WORLD_SIZE", 1)),
    )
    brain = hparams["brain"](
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run.options,
        checkpointer=hparams["checkpointer"],
        sampler=sampler,
        valid_trials=valid_trials,
    )
    loader = torch.utils.data.DataLoader(
        hparams["examples"](rows=rows, entries=sampler.entries),
        batch_sampler=sampler,
        num_workers=hparams["workers"],
        pin_memory=brain.device_type == "cuda",
    )
    logger.info(
        "training on %d utterances, %d identities; %d validation and %d test "
        "trials; %d epochs of %d steps on %s",
        len(rows),
        len(sampler.names),
        len(valid_trials.trials),
        len(test_trials.trials),
        hparams["number_of_epochs"],
        len(sampler),
        brain.device,
    )
    brain.fit(hparams["epoch_counter"], loader)
    if not if_main_process():
        ddp_barrier()
        return {}
    reports = {
        hparams["method"]: brain.report(test_trials, folder / "scores"),
        "log-mel": verify(
            LogMelStatistics(hparams["sample_rate"]).to(brain.device),
            test_trials,
            brain.device,
            folder / "scores" / "log_mel_statistics",
            "log-mel statistics",
        ),
    }
    minutes = (time.time() - began) / 60
    metrics = {
        "method": hparams["method"],
        "seed": hparams["seed"],
        "source": str(folder),
        "trials": without_scores(reports[hparams["method"]]),
        "log_mel_statistics": without_scores(reports["log-mel"]),
        "epochs": hparams["number_of_epochs"],
        "best_epoch": brain.best_epoch(),
        "minutes": round(minutes, 1),
    }
    _finish(folder, metrics, reports, test_trials, brain.past())
    print(f"after {minutes:.1f} minutes")
    ddp_barrier()
    return metrics


def _test_trials(hparams, manifests, dev):
    return TrialList(
        read_trials(manifests / "trials.txt"),
        _tested(manifests),
        pool=dev,
        sirs_db=hparams["sirs_db"],
        name="test trials",
        seed=INTERFERENCE_SEED,
    )


def _valid_trials(hparams, dev, pool):
    """Trials among development speakers, or among quarters of recordings.

    Training speakers interfere: each development speaker meets most others.
    """
    files = dev.groupby("spk_id")["wav"].nunique()
    if hparams["label_free_validation"] or files.max() < 2:
        dev = halve(halve(dev.assign(spk_id=dev["wav"])))
    return TrialList(
        make_trials(dev, hparams["seed"]),
        dev,
        pool=pool,
        sirs_db=hparams["valid_sirs_db"],
        name="validation trials",
        seed=INTERFERENCE_SEED,
    )


def verify_source(run: Run) -> dict[str, Any]:
    """Score a trial list with the model of a training folder.

    Arguments
    ---------
    run : Run
        A loaded hparams/verify.yaml.

    Returns
    -------
    dict
        What was written to metrics.json.

    Raises
    ------
    BadInputError
        If the source, the data or the trials cannot be used.
    """
    hparams = run.hparams
    folder = Path(hparams["output_folder"])
    device = run.options["device"] or sb.utils.distributed.infer_device()
    model = Pretrained(hparams["source"], device)
    method = model.hparams["method"]
    manifests = folder / "manifests"
    prepare_voxceleb(
        hparams["data_folder"],
        manifests,
        hparams["trials"],
        splits=["test"],
        sample_rate=model.hparams["sample_rate"],
    )
    trial_list = TrialList(
        read_trials(hparams["trials"]),
        _tested(manifests),
        pool=read_manifest(hparams["interferers"])
        if hparams["sirs_db"]
        else None,
        sirs_db=hparams["sirs_db"],
        name=str(hparams["trials"]),
        seed=INTERFERENCE_SEED,
    )
    report = verify(
        model.encoder, trial_list, device, folder / "scores", method
    )
    metrics = {
        "method": method,
        "seed": model.hparams["seed"],
        "source": str(hparams["source"]),
        "trials": without_scores(report),
    }
    _finish(folder, metrics, {method: report}, trial_list, [])
    return metrics


def _tested(manifests):
    """Rows of both sides of a trial list, each utterance once."""
    names = ("enrol.csv", "test.csv")
    rows = pd.concat([read_manifest(manifests / name) for name in names])
    return rows.drop_duplicates("ID", ignore_index=True)


def _finish(folder, metrics, reports, trial_list, history):
    draw(folder, reports, trial_list, history)
    write_json(metrics, folder / "metrics.json")
    print(f"\n{table(reports)}\n\nwritten to {folder}")


def draw(
    folder: Path, reports: dict, trial_list: TrialList, history: list[dict]
) -> None:
    """DET curves of each condition and the curves of training.

    Arguments
    ---------
    folder : pathlib.Path
        Pictures go to its `plots`.
    reports : dict
        System to what `verify` returned.
    trial_list : TrialList
        What was scored.
    history : list of dict
        Figures of every epoch, may be empty.
    """
    targets = trial_list.trials["target"].to_numpy()
    plots.plot_det(
        {
            f"{system}, {condition}": (figures["scores"], targets)
            for system, report in reports.items()
            for condition, figures in report.items()
        },
        folder / "plots" / "det.png",
    )
    if history:
        curves = {
            name: [(e["epoch"], e[name]) for e in history if name in e]
            for name in history[-1]
            if name != "epoch"
        }
        path = folder / "plots" / "curves.png"
        plots.plot_curves(curves, path, "epoch", "")
