"""Script that scores trials with a model folder, as its users would load it.

Run on its own, in a process without this package unless the model needs it:

python load_back.py FOLDER WORK [package]

WORK holds trials.json; scores.npy is written there.
"""

import json
import sys
from pathlib import Path


class Absent:
    """Finder to which this package is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Refuse the package, leave others to the next finder."""
        if name.partition(".")[0] == "speechbrain_ssl":
            raise ModuleNotFoundError(f"no module named {name}", name=name)


def main(folder: str, work: str, *package: str) -> None:
    """Load the folder with stock SpeechBrain and score the trials in WORK.

    Arguments
    ---------
    folder : str
        Model folder.
    work : str
        Folder of trials.json: `utterances`, a list of (wav, start, stop), and
        `pairs`, a list of (enrolment, test) positions in it.
    *package : str
        Anything, when the model may import this package.
    """
    if not package:
        sys.meta_path.insert(0, Absent)
    import numpy as np
    import soundfile
    import torch
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.inference.speaker import SpeakerRecognition

    trials = json.loads(Path(work, "trials.json").read_text(encoding="utf-8"))
    options = {"savedir": Path(work, "saved"), "run_opts": {"device": "cpu"}}
    model = SpeakerRecognition.from_hparams(folder, **options)
    waves = [
        torch.from_numpy(soundfile.read(w, b - a, a, dtype="float32")[0])
        for w, a, b in trials["utterances"][:2]
    ]
    vectors = []
    for wav, start, stop in trials["utterances"]:
        wave, _ = soundfile.read(wav, stop - start, start, dtype="float32")
        vectors.append(model.encode_batch(torch.from_numpy(wave))[0, 0])
    vectors = torch.stack(vectors)
    enrol, test = torch.tensor(trials["pairs"]).T
    scores = model.similarity(vectors[enrol], vectors[test])
    one, _ = model.verify_batch(*waves)
    if not torch.allclose(
        one[0, 0], model.similarity(vectors[0], vectors[1]), atol=1e-5
    ):
        raise SystemExit("verify_batch and encode_batch disagree")
    if hasattr(model.hparams, "classifier"):
        options["savedir"] = Path(work, "classifier")
        classifier = EncoderClassifier.from_hparams(folder, **options)
        classifier.hparams.label_encoder.ignore_len()
        classifier.classify_batch(waves[0])
    np.save(Path(work, "scores.npy"), scores.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
