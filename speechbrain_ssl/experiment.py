"""From a YAML file to a trained, verified model: what train.py runs."""

import ctypes
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Optional

import pandas as pd
import speechbrain as sb
import torch
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    run_on_main,
)

from speechbrain_ssl.checkpoints import Stopwatch
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import BEFORE, as_before, write_json
from speechbrain_ssl.dataio.manifest import RECORDING, read_manifest
from speechbrain_ssl.dataio.pieces import pieces
from speechbrain_ssl.dataio.scores import read_models
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.dataio.validation import make_trials
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.baseline import LogMelStatistics
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    table,
    verify,
    without_scores,
)
from speechbrain_ssl.settings import (
    Run,
    claim_output_folder,
    load,
    note_complete,
)

logger = logging.getLogger(__name__)

INTERFERENCE_SEED = 20210103  # one draw of interferers for every comparison
KEPT = ("hyperparams.yaml", "manifests/*")  # of a run that is refused
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep what is freed (glibc; nothing elsewhere).

    A step takes again what the one before it gave back. By default large
    blocks go back to the system, which clears each page when it is taken
    again: a sixth of a training's time on a CPU. Blocks above 32 MiB, the
    most that can be set, still go back.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    tune(M_MMAP_THRESHOLD, 32 * 2**20)
    tune(M_TRIM_THRESHOLD, 2**31 - 1)


def start(arguments: list[str], options: Optional[Any] = None) -> None:
    """Do what a YAML is for, unless its output folder holds it already.

    Arguments
    ---------
    arguments : list of str
        As on the command line of train.py.
    options : optional
        SpeechBrain's run options in place of those of the arguments, by a
        caller that looks itself at what a complete run was made of.

    Raises
    ------
    BadInputError
        If the corpus or the YAML cannot be used.
    """
    keep_freed_memory()
    run = load(arguments)
    if options is not None:
        run = run._replace(options=options)
    if not claim_output_folder(run, compare=options is None):
        return
    if "runner" in run.hparams:
        _make_folder(run)
        run.hparams["runner"](run).run()
        note_complete(run)
    else:
        train(run)


def _make_folder(run):
    sb.create_experiment_directory(
        experiment_directory=run.hparams["output_folder"],
        hyperparams_to_save=run.yaml,
        overrides=run.overrides,
    )


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
    hparams, watch = run.hparams, Stopwatch()
    folder = Path(hparams["output_folder"])
    print(
        f"{hparams['method']}: prepare the corpus, train "
        f"{hparams['number_of_epochs']} epochs, verify unseen speakers clean and "
        f"at {hparams['sirs_db']} dB; expect {hparams['expected_cost']}",
        flush=True,
    )
    trained = hparams["checkpointer"].find_checkpoint() and if_main_process()
    with as_before(folder, KEPT) if trained else nullcontext():
        ddp_barrier()
        _make_folder(run)
        rows, dev, test_trials = _prepare(hparams, folder)
        ddp_barrier()  # all have read what was before
    valid_trials = make_valid_trials(hparams, dev, rows)
    sampler = hparams["batches"](
        rows=rows,
        rank=int(os.environ.get("RANK", 0)),
        processes=int(os.environ.get("WORLD_SIZE", 1)),
    )
    hparams["checkpointer"].add_recoverable(
        "stopwatch", watch, optional_load=True
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
    goes_on = if_main_process()
    leave()  # nobody waits for the test, which may outlast the timeout
    if not goes_on:
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
    metrics = {
        "method": hparams["method"],
        "seed": hparams["seed"],
        "source": str(folder),
        "trials": without_scores(reports[hparams["method"]]),
        "log_mel_statistics": without_scores(reports["log-mel"]),
        "epochs": hparams["number_of_epochs"],
        "best_epoch": brain.checkpointer.chosen().meta["epoch"],
        "last_epoch": brain.past()[-1],
        "minutes": round(watch.minutes, 1),
    }
    _finish(folder, metrics, reports, test_trials, brain.past())
    note_complete(run)
    print(f"after {metrics['minutes']} minutes")
    return metrics


def _prepare(hparams, folder):
    """Rows to train and to validate on and the test trials, all checked."""
    manifests = folder / "manifests"
    run_on_main(hparams["prepare"], kwargs={"save_folder": manifests})
    rows = read_manifest(manifests / "train.csv")
    dev = read_manifest(manifests / "dev.csv")
    before = folder / BEFORE / "manifests" / "train.csv"
    hparams["checkpointer"].train_on(rows, before)
    test_trials = make_test_trials(hparams, manifests, dev)
    shared = set(rows["spk_id"]) & set(test_trials.rows["spk_id"])
    refuse(
        "training and test speakers",
        [
            f"'{speaker}' is in train.csv and in the trials"
            for speaker in sorted(shared)
        ],
        "Prepare the corpus with this trial list, or leave them out of one.",
    )
    return rows, dev, test_trials


def leave():
    """Wait for the other processes, then part from them."""
    ddp_barrier()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def make_test_trials(
    hparams: dict, manifests: Path, dev: pd.DataFrame
) -> TrialList:
    """Trials that a run is tested on.

    Arguments
    ---------
    hparams : dict
        Of the run.
    manifests : pathlib.Path
        Its prepared corpus.
    dev : pandas.DataFrame
        Interfering talkers.

    Returns
    -------
    TrialList
    """
    models = manifests / "models.csv"  # of several cuts, where there are any
    return TrialList(
        read_trials(manifests / "trials.txt"),
        tested(manifests),
        pool=dev,
        sirs_db=hparams["sirs_db"],
        name="test trials",
        seed=INTERFERENCE_SEED,
        models=read_models(models) if models.is_file() else None,
    )


def make_valid_trials(
    hparams: dict, dev: pd.DataFrame, pool: pd.DataFrame
) -> TrialList:
    """Trials among development speakers, or among pieces of recordings.

    Training speakers interfere: each development speaker meets most others.

    Arguments
    ---------
    hparams : dict
        Of the run.
    dev, pool : pandas.DataFrame
        Rows of development and of training speakers.

    Returns
    -------
    TrialList
    """
    if not reads_speakers(hparams, dev):
        dev = pieces(dev)
    return TrialList(
        make_trials(dev, hparams["seed"]),
        dev,
        pool=pool,
        sirs_db=hparams["valid_sirs_db"],
        name="validation trials",
        seed=INTERFERENCE_SEED,
    )


def reads_speakers(hparams: dict, dev: pd.DataFrame) -> bool:
    """Whether validation trials are of speakers, not of recordings.

    Arguments
    ---------
    hparams : dict
        Of a run.
    dev : pandas.DataFrame
        Rows of development speakers.

    Returns
    -------
    bool
        False if `label_free_validation` says so, or no speaker has two files.
    """
    files = dev.groupby("spk_id")["wav"].nunique()
    return not hparams["label_free_validation"] and bool(files.max() > 1)


def tested(manifests: Path) -> pd.DataFrame:
    """Rows of both sides of a trial list, each utterance once.

    Arguments
    ---------
    manifests : pathlib.Path
        Folder of enrol.csv and test.csv.
    """
    names = ("enrol.csv", "test.csv")
    rows = pd.concat([read_manifest(manifests / name) for name in names])
    return rows.drop_duplicates(RECORDING, ignore_index=True)


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
