"""Verification of a trial list with a trained model: what verify.py runs."""

import logging
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pandas as pd
from speechbrain.utils.distributed import (
    if_main_process,
    infer_device,
    run_on_main,
)

from speechbrain_ssl.augment import audio_files
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.dataio.manifest import (
    RECORDING,
    check_rate,
    checksum,
    read_manifest,
)
from speechbrain_ssl.dataio.scores import read_models, read_scores, write_scores
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.breakdown import (
    breakdown,
    group_table,
    read_metadata,
    trial_groups,
)
from speechbrain_ssl.evaluation.calibration import (
    fit_calibration,
    read_calibration,
)
from speechbrain_ssl.evaluation.embed import (
    Embeddings,
    Utterances,
    probe_vector,
)
from speechbrain_ssl.evaluation.enrolment import (
    PIECE_SECONDS,
    Setting,
    TwoPart,
    embed_in_parts,
)
from speechbrain_ssl.evaluation.intervals import speaker_intervals
from speechbrain_ssl.evaluation.metrics import (
    act_dcf,
    cllr,
    min_cllr,
    threshold_at,
    verification_metrics,
)
from speechbrain_ssl.evaluation.normalisation import speaker_means
from speechbrain_ssl.evaluation.plda import PLDA
from speechbrain_ssl.evaluation.scoring import Cosine, Scorer, loudest
from speechbrain_ssl.evaluation.table import embed_to_table
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    table,
    verify,
    without_scores,
)
from speechbrain_ssl.experiment import INTERFERENCE_SEED, leave, tested
from speechbrain_ssl.prepare.voxceleb import prepare_voxceleb
from speechbrain_ssl.pretrained import Model, load_model
from speechbrain_ssl.settings import Run
from speechbrain_ssl.verification_settings import check_settings, makers

logger = logging.getLogger(__name__)


def verify_source(run: Run) -> dict[str, Any]:
    """Score a trial list with a model and report.

    Under torchrun all processes embed the utterances and the cohort; the
    first one goes on alone.

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
        If the source, the data, the trials or a value cannot be used.
    """
    hparams = run.hparams
    check_settings(hparams)
    folder = Path(hparams["output_folder"])
    device = run.options["device"] or infer_device()
    model = load_model(
        hparams["source"], device, hparams["trust_source"], hparams["network"]
    )
    trial_list = _trial_list(hparams, model, folder / "manifests")
    cohort = _cohort(hparams, model, trial_list)
    made = {**makers(hparams), "cohort": None}
    if cohort is not None:
        made["cohort"] = checksum(cohort["ID"])
    look = probe_vector(model.encoder, device)
    # All that is read comes before the embeddings, which may take hours.
    others = _others(hparams["compare"], trial_list, model.method)
    calibration = None
    if hparams["calibration"]:
        calibration = read_calibration(hparams["calibration"], made, look)
    groups = _groups(hparams, trial_list, model.sample_rate)
    setting = _setting(hparams, model, cohort, device, folder / "embeddings")
    if not hparams["two_part"]:
        path = folder / "embeddings" / "clean.npz"
        _table(hparams, model, trial_list.rows, device, path)
    goes_on = if_main_process()  # not known once they have parted
    leave()
    if not goes_on:
        return {}
    _clear(folder)
    report = verify(
        model.encoder,
        trial_list,
        device,
        folder / "scores",
        model.method,
        setting=setting,
    )
    if calibration is not None:
        calibrated = folder / "scores" / "calibrated"
        _calibrate(calibration, report, trial_list, calibrated)
    _break_down(hparams, report, trial_list, groups)
    metrics = {
        "method": model.method,
        "seed": model.seed,
        "source": str(hparams["source"]),
        "scoring": makers(hparams),
        "trials": without_scores(report),
    }
    write_json(metrics, folder / "metrics.json")
    if hparams["fit_calibration"]:
        _fit(hparams, report, trial_list, made, look)
    _draw(others, report, trial_list, model.method, folder)
    print(f"\n{table({model.method: report})}\n\nwritten to {folder}")
    return metrics


def _trial_list(hparams, model, manifests):
    """The trials, bound to manifests given or made of the data folder."""
    models = hparams["models"] and read_models(hparams["models"])
    if hparams["utterances"]:
        parts = [_rows(path, model) for path in hparams["utterances"]]
        rows = pd.concat(parts).drop_duplicates(RECORDING, ignore_index=True)
    else:
        run_on_main(
            prepare_voxceleb,
            args=(hparams["data_folder"], manifests, hparams["trials"]),
            kwargs={"splits": ["test"], "sample_rate": model.sample_rate},
        )
        rows = tested(manifests)
    noises = None
    if hparams["snrs_db"]:
        files = audio_files(hparams["noise_folder"], model.sample_rate)
        noises = pd.DataFrame(files, columns=["wav", "stop"])
        noises = noises.assign(wav=noises["wav"].astype(str), start=0)
        noises["spk_id"] = "noise"
    pool = _rows(hparams["interferers"], model) if hparams["sirs_db"] else None
    return TrialList(
        read_trials(hparams["trials"]),
        rows,
        pool=pool,
        sirs_db=hparams["sirs_db"],
        name=str(hparams["trials"]),
        seed=INTERFERENCE_SEED,
        models=models,
        noises=noises,
        snrs_db=hparams["snrs_db"],
    )


def _cohort(hparams, model: Model, trial_list) -> Optional[pd.DataFrame]:
    """Rows of the cohort; those of trial speakers are told or refused."""
    if not hparams["cohort"]:
        return None
    rows = _rows(hparams["cohort"], model)
    shared = set(rows["spk_id"]) & set(trial_list.rows["spk_id"])
    problem = f"{len(shared)} of its speakers are in the trials, such as "
    problem += f"'{min(shared, default='')}'"
    refuse(
        f"cohort {hparams['cohort']}",
        [problem] if shared and hparams["backend"] == "plda" else [],
        "PLDA learns from their labels: give other speakers, or, where two "
        "corpora have the same names, others in the cohort's spk_id.",
    )
    if shared:
        logger.warning("the cohort is not apart from the test: %s", problem)
    return rows


def _clear(folder):
    """Remove figures of an earlier run; its embeddings stay."""
    (folder / "metrics.json").unlink(missing_ok=True)
    for place in (folder / "scores", folder / "scores" / "calibrated"):
        for path in place.glob("*.txt"):
            path.unlink()


def _setting(hparams, model: Model, rows, device, tables: Path) -> Setting:
    pieces = round(PIECE_SECONDS * model.sample_rate) * hparams["two_part"]
    cohort: Optional[np.ndarray] = None
    backend = Cosine()
    if rows is not None:
        path = tables / "cohort.npz"
        if pieces:
            waves = Utterances(rows)
            embedded = embed_in_parts(
                model.encoder, waves, device, pieces, "cohort"
            )
        else:
            embedded = _table(hparams, model, rows, device, path)
        cohort, speakers = loudest(embedded), rows["spk_id"].to_numpy()
        if hparams["backend"] == "plda":
            backend = PLDA(cohort, speakers)
        elif hparams["subtract_mean"]:
            width = cohort.shape[1] // (6 if pieces else 1)
            backend = Cosine(cohort[:, :width].mean(0))
    if pieces:
        backend = TwoPart(backend)
    if cohort is not None and hparams["cohort_of"] == "speakers":
        means = speaker_means(backend.prepare(cohort), speakers)
        cohort = backend.restore(means).astype(np.float32)
    return Setting(
        Scorer(
            backend,
            hparams["score_norm"],
            cohort,
            hparams["cohort_top"],
            device,
        ),
        hparams["enrolment"],
        model.aggregator,
        pieces,
        bool(hparams["measures"] or hparams["calibration"]),
        tables,
        hparams["padding"],
    )


def _rows(path, model) -> pd.DataFrame:
    rows = read_manifest(path)
    check_rate(rows, model.sample_rate, str(path))
    return rows


def _table(hparams, model, rows, device, path) -> Embeddings:
    padding = hparams["padding"]
    return embed_to_table(
        model.encoder, rows, path, device, path.stem, padding=padding
    )


def _fit(hparams, report, trial_list, made, look):
    """Fit a calibration on these trials and save it."""
    targets = trial_list.trials["target"].to_numpy()
    scores = np.concatenate([part["scores"] for part in report.values()])
    measures = {
        name: np.concatenate(
            [part["measures"][name] for part in report.values()]
        )
        for measure in hparams["measures"]
        for name in (f"{measure}_low", f"{measure}_high")
    }
    labels = np.tile(targets, len(report))
    fitted = fit_calibration(scores, labels, measures)
    rate = hparams["false_alarm_rate"]
    threshold, miss_rate = threshold_at(fitted(scores, measures), labels, rate)
    fitted._replace(
        setting=made,
        model=look,
        threshold={
            "value": threshold,
            "false_alarm_rate": rate,
            "miss_rate": miss_rate,
        },
    ).save(hparams["fit_calibration"])
    where = hparams["fit_calibration"]
    print(f"calibration, threshold {threshold:.3f}: {where}")


def _calibrate(calibration, report, trial_list, folder):
    """Add figures of calibrated scores to the report, and write them."""
    targets = trial_list.trials["target"].to_numpy()
    threshold = calibration.threshold["value"]
    for condition, figures in report.items():
        ratios = calibration(figures["scores"], figures["measures"])
        write_scores(trial_list.trials, ratios, folder / f"{condition}.txt")
        accepted = ratios > threshold
        figures["calibrated"] = {
            **verification_metrics(ratios, targets),
            "act_dcf": act_dcf(ratios, targets),
            "cllr": cllr(ratios, targets),
            "min_cllr": min_cllr(ratios, targets),
            "threshold": threshold,
            "false_alarm_rate": float(accepted[targets == 0].mean()),
            "miss_rate": float((~accepted)[targets == 1].mean()),
        }


def _others(folders, trial_list, method):
    """Scores of other systems on these trials, by name and condition.

    A folder's own name is often a seed, so it serves only where it is alone.
    """
    names = [Path(folder).name for folder in folders]
    if len({method, *names}) <= len(names):
        names = folders
    return {
        f"{name}, {condition}": read_scores(
            Path(folder) / "scores" / f"{condition}.txt", trial_list.trials
        )
        for name, folder in zip(names, folders)
        for condition in trial_list.conditions
    }


def _groups(hparams, trial_list, sample_rate):
    """Labels of the trials for each way of dividing them."""
    rows = trial_list.rows
    seconds = (rows["stop"] - rows["start"]) / sample_rate
    rows = rows.assign(seconds=seconds)
    columns = list(hparams["breakdown"])
    if hparams["metadata"]:
        known = set(rows)
        rows = read_metadata(hparams["metadata"], rows)
        columns = columns or [name for name in rows if name not in known]
    test = rows.iloc[trial_list.tested]
    enrol = rows if trial_list.members is None else None
    places = trial_list.enrol_rows, trial_list.test_rows
    return {name: trial_groups(name, enrol, test, *places) for name in columns}


def _break_down(hparams, report, trial_list, groups):
    """Intervals by speaker, and figures of groups of trials."""
    targets = trial_list.trials["target"].to_numpy()
    speakers = trial_list.rows["spk_id"].to_numpy()
    speakers = (
        speakers[trial_list.first_rows],
        speakers[trial_list.tested][trial_list.test_rows],
    )
    for condition, figures in report.items():
        scores = figures["scores"]
        if hparams["bootstrap"]:
            figures["intervals"] = speaker_intervals(
                scores, targets, *speakers, samples=hparams["bootstrap"]
            )
        if groups:
            figures["breakdown"] = {
                name: breakdown(scores, targets, labels)
                for name, labels in groups.items()
            }
            for name, parts in figures["breakdown"].items():
                print(f"\n{name} ({condition})\n{group_table(parts)}")


def _draw(others, report, trial_list, method, folder):
    """DET curves, other folders' scores beside ours, and histograms."""
    targets = trial_list.trials["target"].to_numpy()
    systems = {
        f"{method}, {condition}": (figures["scores"], targets)
        for condition, figures in report.items()
    }
    plots.plot_histograms(systems, folder / "plots" / "histogram.png")
    systems.update((name, (scores, targets)) for name, scores in others.items())
    plots.plot_det(systems, folder / "plots" / "det.png")
