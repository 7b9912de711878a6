"""The model card: what was trained, how well it does, how to use it."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import speechbrain
from huggingface_hub import EvalResult, ModelCardData

import speechbrain_ssl


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
    tested = _tested_on(hparams)
    calibration = folder / "calibration.json"
    values = {
        "name": statements.name,
        "method": method.title,
        "paper": f" ({method.paper})" if method.paper else "",
        "version": speechbrain_ssl.__version__,
        "speechbrain": speechbrain.__version__,
        "notice": PACKAGE if stock.separates else "",
        "results": _results(metrics),
        "tested": tested,
        "validation": _validation(metrics),
        "pipeline": SEPARATES if stock.separates else STOCK,
        "package": " speechbrain_ssl" if stock.separates else "",
        "rate": hparams["sample_rate"],
        "threshold": metrics["validation"]["eer_threshold"],
        "calibration": CALIBRATION.format(
            json.loads(calibration.read_text(encoding="utf-8"))
        )
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
        "data": ", ".join(statements.datasets) or _trained_on(hparams),
        "labels": LABELS[_labelled(hparams, stock)],
        "weights": _weights(metrics["epochs_exported"]),
        "chosen": LABELS[not hparams.get("label_free_validation", False)],
        "settings": _settings(hparams),
        "limits": LIMITS_SYNTHETIC if _synthetic(hparams) else "",
        "licence": f"`{statements.licence}`"
        if statements.licence != "unknown"
        else "not stated by who exported the model; ask before use",
    }
    header = _front_matter(metrics, method, statements, tested, stock)
    return f"---\n{header}\n---\n\n{CARD.format(**values)}"


def _front_matter(metrics, method, statements, tested, stock):
    results = []
    for condition, figures in metrics["trials"].items():
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


def _synthetic(hparams):
    return "data_folder" in hparams and hparams["data_folder"] is None


def _trained_on(hparams):
    if _synthetic(hparams):
        return "the synthetic corpus built into speechbrain_ssl"
    if "labelled" in hparams:  # a manifest, also of other corpora
        return f"a manifest named `{Path(hparams['labelled']).name}`"
    place = hparams.get("data_folder") or hparams.get("train_csv")
    return f"a corpus in a folder named `{Path(str(place)).name}`"


def _tested_on(hparams):
    if _synthetic(hparams):
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


def _results(metrics):
    lines = [
        "| condition | EER % | minDCF (p = 0.01) | trials |",
        "|---|---|---|---|",
    ]
    for condition, figures in metrics["trials"].items():
        lines.append(
            f"| {condition} | {100 * figures['eer']:.2f} | "
            f"{figures['min_dcf']:.3f} | {figures['targets']} target, "
            f"{figures['nontargets']} nontarget |"
        )
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


PACKAGE = """
> **This model needs a package beside SpeechBrain: `pip install speechbrain_ssl`.**
> Its encoder separates talkers, which no class of SpeechBrain does; everything
> else is stock.
"""
STOCK = (
    "Log-mel features with their mean over the recording removed, an ECAPA-TDNN "
    "(or the embedding model named in hyperparams.yaml) and the cosine of two "
    "embeddings. All classes are SpeechBrain's."
)
SEPARATES = (
    "A separative encoder turns a recording into waveforms, one for each talker, "
    "and one embedding for each. SpeechBrain's interfaces see the embedding of "
    "the loudest; two embeddings are compared by their cosine."
)
CALIBRATION = """
The score becomes log-odds of one speaker with `calibration.json`: weight times
score plus offset ({0}).
"""
CLASSIFY = """
## Identify a training speaker

The classifier knows the {speakers} training speakers and no others.

```python
from speechbrain.inference.classifiers import EncoderClassifier
classifier = EncoderClassifier.from_hparams(source="{name}")
classifier.hparams.label_encoder.ignore_len()
cosines, best, index, speaker = classifier.classify_file("first.wav")
```
"""
SEPARATE = """
## Separate talkers

```python
from speechbrain_ssl.inference import SpeakerModel
model = SpeakerModel("{name}", trust=True)
waveforms, embeddings = model.separate("first.wav")
```
"""
ONNX = """
## ONNX

`embedding_model.onnx` takes `waveforms` (batch, samples) of one length and
gives `embeddings` (batch, dimension), features included.
"""
LABELS = {False: "without speaker labels", True: "with speaker labels"}
LIMITS_SYNTHETIC = (
    "- **Trained on synthetic voices: of no use on real speech.**\n"
)
CARD = """\
# {name}
{notice}
Speaker embeddings by {method}{paper}, trained {labels} with
[SpeechBrain](https://speechbrain.github.io) {speechbrain} and speechbrain_ssl
{version}.

Tested on {tested}, of speakers not trained on:

{results}

On the validation trials the EER is {validation};
SpeechBrain's `SpeakerRecognition` gave the same from this folder when it was exported.

## Pipeline description

{pipeline} Recordings are {rate} Hz with one channel; `from_hparams` models convert
files that are not.

## Install SpeechBrain

```bash
pip install speechbrain{package}
```

## Compute your speaker embeddings

```python
import torch
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(source="{name}")
wave = model.load_audio("first.wav")
embeddings = model.encode_batch(wave)
```

Recordings of unequal length in a padded batch change each other's embeddings;
embed them one by one.

## Perform speaker verification

```python
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(source="{name}")
score, _ = model.verify_files("first.wav", "second.wav")
same = score > {threshold:.4f}
```

The threshold is that of equal errors on the validation trials; SpeechBrain's own
default of 0.25 belongs to another model.
{calibration}{classify}{separate}{onnx}
## Inference on GPU

Add `run_opts={{"device": "cuda"}}` to `from_hparams`.

## Training

Data: {data}. {weights}, validated {chosen}. Training is `train.py` of
speechbrain_ssl with these values:

<details>

```yaml
{settings}
```

</details>

## Limitations

{limits}- The figures above are those of one run with one seed and one trial list; on
  other languages, channels or durations they will differ.
- Embeddings identify people. Use them only where the law and the people allow it.
- Licence of the weights: {licence}.

## Referencing

Method: {method}{paper}.

## Citing SpeechBrain

Ravanelli et al., "SpeechBrain: A General-Purpose Speech Toolkit", 2021,
arXiv:2106.04624; Ravanelli et al., "Open-Source Conversational AI with
SpeechBrain 1.0", JMLR 25, 2024.

## About SpeechBrain

<https://speechbrain.github.io>, <https://github.com/speechbrain/speechbrain>
"""
