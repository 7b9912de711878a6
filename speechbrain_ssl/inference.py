"""Speaker vectors, scores and separated talkers from a model folder."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np
import soundfile
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from speechbrain.inference.speaker import SpeakerRecognition
from tqdm import tqdm

from speechbrain_ssl.checks import BadInputError, refuse
from speechbrain_ssl.dataio.manifest import SHORTEST
from speechbrain_ssl.dataio.recordings import Recording, as_recording
from speechbrain_ssl.evaluation.calibration import read_plain
from speechbrain_ssl.evaluation.embed import as_direction, probe_wave

logger = logging.getLogger(__name__)

STOCK_THRESHOLD = 0.25  # SpeechBrain's default


class Score(NamedTuple):
    """How alike two recordings are.

    Arguments
    ---------
    cosine : float
        -1 to 1.
    threshold : float
        Of the decision, a cosine.
    same : bool
        Whether the cosine is above the threshold.
    log_odds : float or None
        Natural logarithm of the odds of one speaker when both cases are
        equally likely beforehand; None without a calibration.
    probability : float or None
        The same as a probability.
    """

    cosine: float
    threshold: float
    same: bool
    log_odds: Optional[float] = None
    probability: Optional[float] = None


class SpeakerModel:
    """A model folder, on disk or on the Hub.

    hyperparams.yaml of the folder is executed while it is read, as every
    HyperPyYAML file is. A folder on disk counts as yours; from the Hub only
    SpeechBrain's own models are loaded without `trust`. Weights are read with
    weights_only.

    Arguments
    ---------
    source : str or pathlib.Path
        Model folder, or `user/name` on the Hub.
    device : str, optional
        By default the best there is.
    trust : bool
        Whether a Hub model of others may be loaded.

    Raises
    ------
    BadInputError
        If the source is no model folder, cannot be fetched or is not trusted.
    """

    def __init__(
        self,
        source: Union[str, Path],
        device: Optional[str] = None,
        trust: bool = False,
    ):
        folder = _local(source, trust)
        problems = []
        if not (folder / "hyperparams.yaml").is_file():
            problems.append("it has no hyperparams.yaml")
        elif (folder / "run.json").is_file():
            problems.append("it is a training folder")
        refuse(
            str(source),
            problems,
            "Give a model folder: `speechbrain-ssl export` makes one.",
        )
        options = {"device": device} if device else None
        try:
            self.model = SpeakerRecognition.from_hparams(
                str(folder), run_opts=options
            )
        except Exception as error:  # whatever a class named in it raises
            refuse(
                str(source),
                [f"it cannot be loaded: {type(error).__name__}: {error}"],
                "Fetch or export it again.",
            )
        self.sample_rate = self.model.audio_normalizer.sample_rate
        self.threshold = _threshold(folder / "metrics.json")
        self.calibration = self._calibration(folder / "calibration.json")
        self._told: set = set()

    def _calibration(self, path):
        """That of the plain cosine, when the model has it."""
        if not path.is_file():
            return None
        try:
            vector = self.model.encode_batch(probe_wave()).flatten()
            found = read_plain(path, as_direction(vector.cpu().numpy()))
        except BadInputError as error:
            logger.warning("no probabilities: %s", error)
            return None
        return found

    def read(self, recording: Recording) -> torch.Tensor:
        """Samples at the model's rate, one channel.

        Every kind of conversion is told once.

        Arguments
        ---------
        recording : Recording
            What to read.

        Returns
        -------
        torch.Tensor
            (T,).

        Raises
        ------
        BadInputError
            If it cannot be read, is too short or holds NaN.
        """
        problem = None
        try:
            wave, rate = soundfile.read(
                recording.path,
                start=recording.start,
                stop=None if recording.stop < 0 else recording.stop,
                dtype="float32",
                always_2d=True,
            )
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            problem = f"it cannot be read: {error}"
        else:
            if len(wave) < SHORTEST * rate:
                problem = f"it lasts {len(wave) / rate:.3f} s"
            elif not np.isfinite(wave).all():
                problem = "it holds NaN or inf"
        refuse(
            recording.path,
            [problem] if problem else [],
            f"Recordings are finite and last {SHORTEST} s or more.",
        )
        kind = rate, wave.shape[1]
        if kind != (self.sample_rate, 1) and kind not in self._told:
            self._told.add(kind)
            logger.warning(
                "%s has %d Hz and %d channel(s): it and others like it are "
                "converted to %d Hz and one channel",
                recording.path,
                *kind,
                self.sample_rate,
            )
        wave = torch.from_numpy(wave)
        return self.model.audio_normalizer(wave, rate)

    def embed(
        self, recordings: Sequence[Union[str, Path, Recording]]
    ) -> np.ndarray:
        """One vector a recording, each embedded on its own, without padding.

        Arguments
        ---------
        recordings : sequence of str, pathlib.Path or Recording
            Audio files or pieces of them.

        Returns
        -------
        numpy.ndarray
            (N, D) float32, as the model gives them. Of a model that separates
            the vector of the loudest talker.

        Raises
        ------
        BadInputError
            If a file cannot be used.
        """
        rows = [as_recording(item) for item in recordings]
        vectors = [
            self.model.encode_batch(self.read(row))[0, 0].float().cpu().numpy()
            for row in tqdm(rows, desc="embeddings", delay=5)
        ]
        return np.stack(vectors)

    def score(self, one: Union[str, Path], other: Union[str, Path]) -> Score:
        """Compare two recordings.

        Arguments
        ---------
        one, other : str or pathlib.Path
            Audio files.

        Returns
        -------
        Score

        Raises
        ------
        BadInputError
            If a file cannot be used.
        """
        first, second = torch.from_numpy(self.embed([one, other]))
        cosine = float(self.model.similarity(first, second))
        decision = cosine, self.threshold, cosine > self.threshold
        if self.calibration is None:
            return Score(*decision)
        log_odds = float(self.calibration([cosine], {})[0])
        probability = float(torch.tensor(log_odds).sigmoid())
        return Score(*decision, log_odds, probability)

    @torch.no_grad()
    def separate(
        self, mixture: Union[str, Path]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Talkers of a mixture, the loudest first.

        Arguments
        ---------
        mixture : str or pathlib.Path
            Audio file.

        Returns
        -------
        tuple of numpy.ndarray
            Waveforms (C, T) at `sample_rate` and unit vectors (C, D).

        Raises
        ------
        BadInputError
            If the model does not separate or the file cannot be used.
        """
        network = self.model.mods["embedding_model"]
        separator = getattr(network, "encoder", None)
        problem = "this model gives one vector a recording"
        refuse(
            "separate",
            [] if hasattr(separator, "sources") else [problem],
            "Give the folder of a CSC model.",
        )
        wave = self.read(as_recording(mixture)).to(self.model.device)
        slots = separator(wave.unsqueeze(0))
        loudest = slots.estimates[0].square().sum(-1).argsort(descending=True)
        return (
            slots.estimates[0, loudest].cpu().numpy(),
            slots.embeddings[0, loudest].cpu().numpy(),
        )


def _local(source, trust):
    """Folder of the source, fetched from the Hub when it is no folder."""
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    problem = (
        "it is no folder here, and the YAML of a Hub model is code that runs "
        "while it is loaded"
    )
    owned = name.startswith("speechbrain/") and name.count("/") == 1
    refuse(
        name,
        [] if trust or owned else [problem],
        f"Read https://huggingface.co/{name}/blob/main/hyperparams.yaml; if "
        "you trust its owner, give --trust (in Python: trust=True).",
    )
    try:
        return Path(snapshot_download(name, ignore_patterns=["*.onnx"]))
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        refuse(
            name,
            [f"it cannot be fetched from the Hub: {error}"],
            "Check the name and the network, or give a folder.",
        )


def _threshold(path):
    """Of equal errors on the validation trials, when the model has them."""
    if not path.is_file():
        return STOCK_THRESHOLD
    metrics = json.loads(path.read_text(encoding="utf-8"))
    figures = metrics.get("validation", {})
    return float(figures.get("eer_threshold", STOCK_THRESHOLD))
