"""From a training folder to a model folder that has been loaded back."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from speechbrain_ssl.checks import BadInputError, refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.evaluation.calibration import read_plain
from speechbrain_ssl.evaluation.embed import probe_vector
from speechbrain_ssl.evaluation.metrics import verification_metrics
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    verify,
    without_scores,
)
from speechbrain_ssl.experiment import (
    make_test_trials,
    make_valid_trials,
    reads_speakers,
)
from speechbrain_ssl.prepare.corpus import is_synthetic
from speechbrain_ssl.pretrained import Pretrained
from speechbrain_ssl.publishing import load_back
from speechbrain_ssl.publishing.card import Statements, model_card
from speechbrain_ssl.publishing.onnx import check_onnx, export_onnx
from speechbrain_ssl.publishing.stock import stock_model

logger = logging.getLogger(__name__)

SAME = 5e-5  # of the EER, a fraction: half of its fourth digit
CPU = torch.device("cpu")
FILES = (  # all that an export writes, the card last
    "embedding_model.ckpt",
    "embedding_model.onnx",
    "mean_var_norm_emb.ckpt",
    "classifier.ckpt",
    "label_encoder.ckpt",
    "hyperparams.yaml",
    "metrics.json",
    "calibration.json",
    "README.md",
)


def export(
    source: Union[str, Path],
    to: Union[str, Path],
    statements: Statements,
    average: int = 1,
    force: bool = False,
    onnx: bool = False,
) -> dict[str, Any]:
    """Write a model folder, complete and loaded back, or nothing.

    The validation trials (clean) are scored with the training folder's model
    and, in another process that sees only stock SpeechBrain and no network,
    with the new folder.

    Arguments
    ---------
    source : str or pathlib.Path
        Finished training folder; executed as YAML, so one of your own.
    to : str or pathlib.Path
        Where the model folder goes.
    statements : Statements
        For the card.
    average : int
        Last epochs whose weights are averaged; 1 is the chosen epoch alone.
        Weights that are not those of metrics.json are tested anew.
    force : bool
        Whether files of an earlier export, card included, are replaced. Its
        calibration stays where it was fitted to these weights.
    onnx : bool
        Whether embedding_model.onnx is written as well.

    Returns
    -------
    dict
        What was written to metrics.json.

    Raises
    ------
    BadInputError
        If the training folder cannot be used, its recordings are gone, an
        earlier export is in the way, or the folder gives another EER.
    """
    source, to = Path(source), Path(to)
    refuse(
        str(to),
        ["it is a training folder"] if (to / "run.json").exists() else [],
        "Give another folder for the model.",
    )
    there = [name for name in reversed(FILES) if (to / name).exists()]
    refuse(
        str(to),
        [] if force else [f"it has a {name} already" for name in there],
        "Give another folder, or --force to replace what an export wrote.",
    )
    metrics = _read_metrics(source)
    model = Pretrained(source, average=average)
    refuse(
        str(source / "metrics.json"),
        [] if {"trials", "best_epoch"} <= set(metrics) else ["it is another's"],
        "It is not what train.py wrote: train again.",
    )
    epochs = sorted(int(one.meta["epoch"]) for one in model.checkpoints)
    reported = epochs == [metrics["best_epoch"]]
    train = read_manifest(source / "manifests" / "train.csv")
    dev = read_manifest(source / "manifests" / "dev.csv")
    stock = stock_model(model, train)
    if onnx:
        check_onnx(stock.encoder)
    if not reported:  # the run's figures are those of another checkpoint
        report = verify(
            model.encoder,
            make_test_trials(model.hparams, source / "manifests", dev),
            CPU,
            label="test",
        )
        metrics["trials"] = without_scores(report)
    trials = make_valid_trials(
        {**model.hparams, "valid_sirs_db": []}, dev, train
    )
    figures = verify(model.encoder, trials, CPU, label="valid")["clean"]
    metrics["validation"] = without_scores({"clean": figures})["clean"]
    metrics["epochs_exported"] = epochs
    metrics["validated_with_labels"] = reads_speakers(model.hparams, dev)
    metrics["synthetic"] = is_synthetic(train["wav"].iat[0])
    to.parent.mkdir(parents=True, exist_ok=True)
    near = to if to.is_dir() else to.parent  # on the file system of `to`
    with tempfile.TemporaryDirectory(dir=near, prefix=".export") as name:
        made = Path(name)
        stock.write(made)
        _check(made, stock, trials, figures["eer"])
        if onnx:
            export_onnx(stock.encoder, made / "embedding_model.onnx")
        write_json(metrics, made / "metrics.json")
        vector = probe_vector(model.encoder, CPU)
        for folder, any_model in ((source, reported), (to, False)):
            _copy_calibration(folder, made, vector, any_model)
        card = model_card(model.hparams, stock, metrics, statements, made)
        (made / "README.md").write_text(card, encoding="utf-8")
        to.mkdir(exist_ok=True)
        for file in FILES:
            if (made / file).exists():
                os.replace(made / file, to / file)
            else:
                (to / file).unlink(missing_ok=True)
    return metrics


def _copy_calibration(folder, made, vector, any_model):
    """Add a calibration of this model's plain cosines, if there is one.

    One that does not say its model serves where `any_model` does.
    """
    path = folder / "calibration.json"
    if not path.is_file() or (made / path.name).exists():
        return
    try:
        found = read_plain(path, vector)
    except BadInputError as error:
        logger.warning("left out: %s", error)
        return
    if any_model or found.model:
        shutil.copy(path, made)
    else:
        logger.warning("left out: %s may be of other weights", path)


def _read_metrics(source):
    path = source / "metrics.json"
    refuse(
        str(source),
        [] if path.is_file() else ["it has no metrics.json"],
        "Give the output folder of a finished train.py.",
    )
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics.pop("source", None)  # a path of this machine
    return metrics


def _check(folder, stock, trials, expected):
    """Refuse a folder whose scores in another process have another EER."""
    scores = score_elsewhere(folder, trials, stock.separates)
    eer = verification_metrics(scores, trials.trials["target"])["eer"]
    problem = (
        f"its EER on the validation trials is {100 * eer:.3f} % in the "
        f"exported folder and {100 * expected:.3f} % in the training folder"
    )
    refuse(
        "export",
        [] if abs(eer - expected) < SAME else [problem],
        "Nothing was written.",
    )


def score_elsewhere(
    folder: Path, trials: TrialList, with_package: bool
) -> np.ndarray:
    """Scores of a model folder from a process of its own, without the Hub.

    Arguments
    ---------
    folder : pathlib.Path
        Model folder.
    trials : TrialList
        Its clean condition is scored.
    with_package : bool
        Whether that process may import this package.

    Returns
    -------
    numpy.ndarray
        (trials,) cosines.

    Raises
    ------
    BadInputError
        If the folder cannot be loaded or scored there.
    """
    enrol = trials.enrol_rows.tolist()
    test = trials.tested[trials.test_rows].tolist()
    rows = trials.rows.assign(wav=trials.rows["wav"].map(os.path.abspath))
    content = {
        "utterances": rows[["wav", "start", "stop"]].values.tolist(),
        "pairs": list(zip(enrol, test)),
    }
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_json(content, work / "trials.json")
        script = shutil.copy(load_back.__file__, work / "load_back.py")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        if with_package:
            paths = [str(Path(__file__).parents[2])]
            paths += filter(None, [os.environ.get("PYTHONPATH")])
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        done = subprocess.run(
            [sys.executable, script, str(folder.absolute()), str(work)]
            + ["package"] * with_package,
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
        )
        last = "\n    ".join(done.stderr.strip().splitlines()[-3:])
        refuse(
            "export",
            [f"the folder could not be loaded back:\n    {last}"]
            if done.returncode
            else [],
            "Nothing was written.",
        )
        return np.load(work / "scores.npy", allow_pickle=False)
