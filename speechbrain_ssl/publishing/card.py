"""The model card: what was trained, how well it does, how to use it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import speechbrain
from huggingface_hub import EvalResult, ModelCardData

import speechbrain_ssl
from speechbrain_ssl.evaluation.calibration import read_plain
from speechbrain_ssl.publishing.card_text import (
    BEST,
    CALIBRATION,
    CARD,
    CLASSIFY,
    LABELS,
    LIMITS_SYNTHETIC,
    ONNX,
    PACKAGE,
    SEPARATE,
    SEPARATES,
    START,
    STOCK,
)


class Statements(NamedTuple):
    """What only the user knows, for the card.

    Arguments
    ---------
    name : str
        `user/name` that the model will have on the Hub.
    licence : str
        Identifier as the Hub has them, e.g. ``"apache-2.0"``.
    datasets : tuple of str
        What the model was trained on.
    """

    name: str
    licence: str = "unknown"
    datasets: tuple[str, ...] = ()


class Method(NamedTuple):
    """How the card names a method."""

    title: str
    paper: str


METHODS = {
    "csc": Method(
        "Contrastive Separative Coding",
        "Wang, Lam, Su, Yu, ICASSP 2021, arXiv:2103.00816",
    ),
    "dino": Method("DINO", "Cho et al., Interspeech 2022, arXiv:2208.05413"),
    "ntxent": Method("NT-Xent", "Chen et al., ICML 2020, arXiv:2002.05709"),
    "aam_supcon": Method(
        "AAM-SupCon", "Li, Mak, APSIPA ASC 2022, arXiv:2210.16636"
    ),
}


def model_card(
    hparams: dict[str, Any],
    stock: Any,
    metrics: dict[str, Any],
    statements: Statements,
    folder: Path,
) -> str:
    """Text of README.md.

    Arguments
    ---------
    hparams : dict
        Of the training folder.
    stock : StockModel
        What was exported.
    metrics : dict
        As written to metrics.json.
    statements : Statements
        Of the user.
    folder : pathlib.Path
        The model folder so far; what lies in it is described.

    Returns
    -------
    str
    """
    name = hparams["method"]
    method = METHODS.get(
        re.sub("_(galr|paper|ecapa)$", "", name), Method(name, "")
    )
    synthetic = metrics["synthetic"]
    tested = _tested_on(hparams, synthetic)
    figures = _figures(metrics, stock)
    calibration = folder / "calibration.json"
    values = {
        "name": statements.name,
        "method": method.title,
        "paper": f" ({method.paper})" if method.paper else "",
        "version": speechbrain_ssl.__version__,
        "speechbrain": speechbrain.__version__,
        "notice": PACKAGE if stock.separates else "",
        "results": _results(metrics, figures),
        "tested": tested,
        "validation": _validation(metrics),
        "pipeline": SEPARATES if stock.separates else STOCK,
        "package": " speechbrain_ssl" if stock.separates else "",
        "rate": hparams["sample_rate"],
        "threshold": metrics["validation"]["eer_threshold"],
        "calibration": _log_odds(read_plain(calibration))
        if calibration.is_file()
        else "",
        "classify": CLASSIFY.format(
            name=statements.name, speakers=stock.speakers
        )
        if stock.speakers
        else "",
        "separate": SEPARATE.format(name=statements.name)
        if stock.separates
        else "",
        "onnx": ONNX if (folder / "embedding_model.onnx").exists() else "",
        "data": ", ".join(statements.datasets)
        or _trained_on(hparams, synthetic),
        "labels": _start(hparams) or LABELS[_labelled(hparams, stock)],
        "weights": _weights(metrics["epochs_exported"]),
        "chosen": LABELS[metrics["validated_with_labels"]],
        "settings": _settings(hparams),
        "limits": LIMITS_SYNTHETIC if synthetic else "",
        "licence": f"`{statements.licence}`"
        if statements.licence != "unknown"
        else "not stated by who exported the model; ask before use",
    }
    header = _front_matter(figures, method, statements, tested, stock)
    return f"---\n{header}\n---\n\n{CARD.format(**values)}"


def _figures(metrics, stock):
    """What the exported model gives: of several slots the loudest one's."""
    return {
        condition: figures["rules"]["loudest"] if stock.separates else figures
        for condition, figures in metrics["trials"].items()
    }


def _log_odds(found):
    """The calibration as a line of the cosine."""
    weight = found.weights[0] / found.scale[0]
    offset = found.offset - weight * found.shift[0]
    return CALIBRATION.format(weight, offset)


def _start(hparams):
    """How a model came about that began with the weights of another."""
    weights = hparams.get("embedding_weights")
    if not weights or "labelled" in hparams:  # a round names its labels
        return ""
    own = LABELS[hparams["batches"].keywords.get("identity") == "speaker"]
    path = Path(str(weights))
    return START.format(own, f"{path.parent.name}/{path.name}")


def _front_matter(trials, method, statements, tested, stock):
    results = []
    for condition, figures in trials.items():
        shared = {
            "task_type": "speaker-verification",
            "task_name": "Speaker verification",
            "dataset_type": re.sub(r"\W+", "-", tested).strip("-").lower(),
            "dataset_name": f"{tested}, {condition}",
            "dataset_config": condition,
        }
        for kind, name, value in (
            ("eer", "EER (%)", round(100 * figures["eer"], 3)),
            ("min_dcf", "minDCF (p=0.01)", round(figures["min_dcf"], 4)),
        ):
            results.append(
                EvalResult(
                    metric_type=kind,
                    metric_name=name,
                    metric_value=value,
                    **shared,
                )
            )
    return ModelCardData(
        model_name=statements.name,
        library_name="speechbrain",
        license=statements.licence,
        datasets=list(statements.datasets) or None,
        metrics=["EER", "minDCF"],
        tags=[
            "speechbrain",
            "embeddings",
            "Speaker",
            "Verification",
            "pytorch",
            type(stock.encoder.embedding_model).__name__
            if not stock.separates
            else "separation",
            method.title,
        ],
        eval_results=results,
    ).to_yaml()


def _trained_on(hparams, synthetic):
    if synthetic:
        return "the synthetic corpus built into speechbrain_ssl"
    if "labelled" in hparams:  # a manifest, also of other corpora
        return f"a manifest named `{Path(hparams['labelled']).name}`"
    place = hparams.get("data_folder") or hparams.get("train_csv")
    return f"a corpus in a folder named `{Path(str(place)).name}`"


def _tested_on(hparams, synthetic):
    if synthetic:
        return "synthetic corpus of speechbrain_ssl"
    names = ("data_folder", "test_csv", "manifests")
    place = next(hparams[name] for name in names if hparams.get(name))
    trials = Path(str(hparams.get("test_trials") or "trials.txt")).name
    return f"{Path(str(place)).name}, {trials}"


def _labelled(hparams, stock):
    if "labelled" in hparams:
        return not stock.clusters
    return hparams["batches"].keywords.get("identity") == "speaker"


def _weights(epochs):
    if len(epochs) == 1:
        return f"Weights of epoch {epochs[0]}"
    return f"Mean weights of the epochs {', '.join(map(str, epochs))}"


def _results(metrics, trials):
    lines = [
        "| condition | EER % | minDCF (p = 0.01) | trials |",
        "|---|---|---|---|",
    ]
    for condition, figures in trials.items():
        lines.append(
            f"| {condition} | {100 * figures['eer']:.2f} | "
            f"{figures['min_dcf']:.3f} | {figures['targets']} target, "
            f"{figures['nontargets']} nontarget |"
        )
    best = ", ".join(
        f"{condition} {100 * figures['rules']['best']['eer']:.2f}"
        for condition, figures in metrics["trials"].items()
        if figures.get("rule") == "best" and "rules" in figures
    )
    if best:
        lines.append(BEST.format(best))
    return "\n".join(lines)


def _validation(metrics):
    figures = metrics["validation"]
    return (
        f"{100 * figures['eer']:.2f} % of {figures['targets']} target and "
        f"{figures['nontargets']} nontarget trials"
    )


def _settings(hparams):
    """Numbers and choices of the YAML; no text, which may hold paths."""
    kept = {
        key: value
        for key, value in hparams.items()
        if isinstance(value, (bool, int, float))
        or (isinstance(value, list) and key == "channels")
    }
    return "\n".join(f"{key}: {value}" for key, value in kept.items())
