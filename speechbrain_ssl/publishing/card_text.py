"""Sentences of the model card; `card.py` puts them together."""

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
The score becomes log-odds of one speaker with `calibration.json`:
{0:.4g} times the cosine, plus {1:.4g}.
"""
BEST = """
These are of the loudest talker. Where all talkers of the test recording are compared
and the best one counts, as `train.py` does, the EER in % is: {0}."""
START = "{0} from the weights `{1}` of another training,"
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
