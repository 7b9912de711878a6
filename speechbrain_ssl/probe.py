"""Probe of a trained encoder: what `speechbrain-ssl probe` runs."""

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import speechbrain as sb

from speechbrain_ssl import settings
from speechbrain_ssl.checks import check_sizes, nearest, refuse
from speechbrain_ssl.dataio.files import replaced_when_done, write_json
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.baseline import LogMelStatistics
from speechbrain_ssl.evaluation.embed import embed
from speechbrain_ssl.evaluation.scoring import loudest
from speechbrain_ssl.prepare.cremad import prepare_cremad
from speechbrain_ssl.prepare.emodb import prepare_emodb
from speechbrain_ssl.prepare.iemocap import prepare_iemocap
from speechbrain_ssl.prepare.labelled import prepare_csv
from speechbrain_ssl.prepare.msp_podcast import prepare_msp_podcast
from speechbrain_ssl.pretrained import Pretrained

logger = logging.getLogger(__name__)

KEYS = (
    "source",
    "corpus",
    "data_folder",
    "csv",
    "label",
    "classes",
    "seed",
    "output_folder",
    "label_percents",
    "draws",
    "finetune",
)
ASKED = ("source", "corpus", "data_folder", "csv", "label", "classes", "seed")
PREPARATIONS = {
    "cremad": prepare_cremad,
    "emodb": prepare_emodb,
    "iemocap": prepare_iemocap,
    "msp_podcast": prepare_msp_podcast,
}


def probe(arguments: list[str]) -> dict[str, Any]:
    """Predict a label from embeddings of whole files of unseen speakers.

    Writes metrics.json, predictions.csv, the manifest with its folds and
    pictures of the confusion matrix and of the label-efficiency curve.

    Arguments
    ---------
    arguments : list of str
        hparams/probe.yaml or hparams/probe_finetune.yaml and overrides.

    Returns
    -------
    dict
        What was written to metrics.json.

    Raises
    ------
    BadInputError
        If the source, the corpus or the YAML cannot be used.
    """
    installed = importlib.util.find_spec("sklearn")
    refuse(
        "probe",
        [] if installed else ["scikit-learn is not installed"],
        'pip install "speechbrain_ssl[probe]"',
    )
    from speechbrain_ssl.evaluation import probe as probes

    run = settings.load(arguments, KEYS)
    hparams, folder = run.hparams, Path(run.hparams["output_folder"])
    percents, draws = hparams["label_percents"], hparams["draws"]
    check_sizes(
        label_percents=(
            all(0 < percent <= 100 for percent in percents),
            percents,
            "a list of values above 0, up to 100",
        ),
        draws=(draws >= 1, draws, "1 or more"),
    )
    asked = {name: hparams[name] for name in ASKED}
    asked["source"] = str(asked["source"])
    _refuse_another(folder, asked)
    device = run.options["device"] or sb.utils.distributed.infer_device()
    model = Pretrained(hparams["source"], device)
    method, rate = model.hparams["method"], model.hparams["sample_rate"]
    rows = _labelled(hparams, rate, folder / "manifest.csv")
    labels = rows[hparams["label"]].to_numpy()
    splits = probes.speaker_splits(rows, hparams["label"])
    encoders = {
        method: model.encoder,
        "log-mel statistics": LogMelStatistics(rate).to(device),
    }
    vectors = {
        system: loudest(embed(encoder, rows, device, label=system))
        for system, encoder in encoders.items()
    }
    given = {
        system: probes.linear_predictions(table, labels, splits)
        for system, table in vectors.items()
    }
    if hparams["finetune"] is not None:
        given = {
            f"{method}, fine-tuned": hparams["finetune"](
                model.encoder, rows, labels, splits, rate, run.options
            ),
            **given,
        }
    given["majority class"] = probes.majority_predictions(labels, splits)
    predictions = pd.DataFrame(given, index=rows["ID"])
    tested = predictions["majority class"].notna().to_numpy()
    systems = {
        system: probes.classification_metrics(labels[tested], column[tested])
        for system, column in predictions.items()
    }
    curves = {
        system: probes.label_curve(
            table, labels, splits, percents, draws, hparams["seed"]
        )
        for system, table in vectors.items()
    }
    metrics = {
        "method": method,
        "seed": hparams["seed"],
        "source": str(hparams["source"]),
        "corpus": hparams["corpus"],
        "label": hparams["label"],
        "asked": asked,
        "classes": sorted(set(labels[tested])),
        "folds": {s.name: _fold(rows.iloc[s.test]) for s in splits},
        "systems": systems,
        "label_efficiency": curves,
    }
    with replaced_when_done(folder / "predictions.csv") as path:
        kept = rows.set_index("ID")[["spk_id", "fold", hparams["label"]]]
        kept.join(predictions)[tested].to_csv(path)
    _draw(folder / "plots", metrics)
    write_json(metrics, folder / "metrics.json")
    print(f"\n{table_of(systems)}\n\nwritten to {folder}")
    return metrics


def _refuse_another(folder, asked):
    """Results of another model or question are not to be replaced."""
    problems = [
        f"it is a model's: it has a {name}"
        for name in ("hyperparams.yaml", "run.json")
        if (folder / name).exists()
    ]
    metrics = folder / "metrics.json"
    if metrics.is_file() and not problems:
        there = json.loads(metrics.read_text(encoding="utf-8"))
        there = there.get("asked") or {"source": there["source"]}
        problems = [
            f"{metrics} is of {name}={there[name]}, not {value}"
            for name, value in asked.items()
            if there.get(name, value) != value
        ]
    refuse(
        "output_folder",
        problems,
        "Give another with --output_folder=DIR, or remove that one.",
    )


def _labelled(hparams, sample_rate, manifest):
    """Rows of the corpus whose label is one of the classes."""
    corpus, label = hparams["corpus"], hparams["label"]
    known = [*PREPARATIONS, "csv"]
    problem = f"it is '{corpus}'{nearest(str(corpus), known)}"
    refuse(
        "corpus",
        [] if corpus in known else [problem],
        f"Give --corpus=NAME, one of {', '.join(known)}.",
    )
    needed = "csv" if corpus == "csv" else "data_folder"
    refuse(
        f"corpus {corpus}",
        [f"{needed} is not given"] if hparams[needed] is None else [],
        f"Add --{needed}=PATH.",
    )
    if corpus == "csv":
        prepare_csv(
            hparams["csv"],
            manifest,
            sample_rate,
            label,
            hparams["data_folder"],
            hparams["seed"],
        )
    else:
        drawn = {"seed": hparams["seed"]} if corpus == "cremad" else {}
        PREPARATIONS[corpus](
            hparams["data_folder"], manifest, sample_rate, **drawn
        )
    rows = read_manifest(manifest)
    problem = f"there is no column '{label}'{nearest(label, rows.columns)}"
    advice = f"The columns are {', '.join(rows.columns)}."
    refuse("label", [] if label in rows else [problem], advice)
    found = sorted(set(rows[label]) - {""})
    classes = [str(name) for name in hparams["classes"] or found]
    problems = [
        f"no row has the class '{name}'{nearest(name, found)}"
        for name in classes
        if name not in found
    ]
    if len(classes) < 2:
        problems.append(f"there are {len(classes)} classes; 2 are needed")
    refuse("classes", problems, f"The classes are {', '.join(found)}.")
    kept = rows[rows[label].isin(classes)].reset_index(drop=True)
    logger.info("%d of %d utterances have a class", len(kept), len(rows))
    return kept


def _fold(rows):
    return {"utterances": len(rows), "speakers": rows["spk_id"].nunique()}


def _draw(folder, metrics):
    system = next(iter(metrics["systems"]))
    title = f"{system}: {metrics['label']}, {metrics['corpus']}"
    counts = metrics["systems"][system]["confusion"]
    path = folder / "confusion.png"
    plots.plot_confusion(counts, metrics["classes"], path, title)
    curves = {
        system: [
            (line["percent"], sum(recalls) / len(recalls))
            for line in curve
            for recalls in [line["unweighted_recall"]]
        ]
        for system, curve in metrics["label_efficiency"].items()
    }
    if any(curves.values()):
        axes = "labels used (%)", "unweighted recall"
        plots.plot_curves(curves, folder / "label_efficiency.png", *axes)


def table_of(systems: dict[str, dict[str, Any]]) -> str:
    """Text table of the pooled figures, one line a system.

    Arguments
    ---------
    systems : dict
        System name to what `classification_metrics` returned.

    Returns
    -------
    str

    Example
    -------
    >>> figures = {"micro_f1": 0.5, "macro_f1": 0.4, "unweighted_recall": 0.45}
    >>> print(table_of({"dino": {**figures, "utterances": 20}}))
    system                    micro-F1 %  macro-F1 %  recall %  utterances
    dino                           50.00       40.00     45.00          20
    """
    lines = [
        "system                    micro-F1 %  macro-F1 %  recall %  utterances"
    ]
    for system, figures in systems.items():
        lines.append(
            f"{system:<25} {100 * figures['micro_f1']:10.2f}  "
            f"{100 * figures['macro_f1']:10.2f}  "
            f"{100 * figures['unweighted_recall']:8.2f}  "
            f"{figures['utterances']:10d}"
        )
    return "\n".join(lines)
