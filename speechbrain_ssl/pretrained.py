"""Encoders that others trained: a training folder, a folder, the Hub."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.utils.checkpoints import average_checkpoints
from torch import nn

from speechbrain_ssl.checks import misfits, refuse
from speechbrain_ssl.lobes.encoder import normalised_features


class Pretrained:
    """Encoder and settings of a finished or interrupted training folder.

    The folder's hyperparams.yaml is executed while it is read, as every
    HyperPyYAML file is: give only folders you trust. Weights are read with
    weights_only.

    Arguments
    ---------
    source : str or pathlib.Path
        Output folder of train.py.
    device : str
        Where the encoder goes.
    average : int
        1: the checkpoint that validation chose (`SafeCheckpointer.chosen`);
        above: mean weights of that many last epochs.
    network : str, optional
        Key of the module that embeds, in place of the method's own: `encoder`
        is DINO's student.

    Raises
    ------
    BadInputError
        If the folder is not that of a run, has too few checkpoints or no such
        network.
    """

    def __init__(
        self,
        source: Union[str, Path],
        device: str = "cpu",
        average: int = 1,
        network: Optional[str] = None,
    ):
        folder = Path(source)
        _refuse_chain(folder)
        yaml = folder / "hyperparams.yaml"
        advice = "Give the output folder of train.py with --source=DIR."
        refuse(
            str(source),
            [] if yaml.is_file() else ["it has no hyperparams.yaml"],
            advice,
        )
        text = yaml.read_text(encoding="utf-8")
        overrides = {
            key: value
            for key, value in _elsewhere(folder).items()
            if f"\n{key}:" in text
        }
        self.hparams = load_hyperpyyaml(text, overrides)
        missing = {"brain", "checkpointer"} - set(self.hparams)
        refuse(
            str(source),
            ["it is a model folder, no training folder"] if missing else [],
            advice,
        )
        brain = self.hparams["brain"]
        evaluated = getattr(brain, "func", brain).EVALUATED
        networks = sorted({evaluated, "encoder"})
        evaluated = network or evaluated
        problem = f"network is {network}; it has {' and '.join(networks)}"
        refuse(
            str(source),
            [] if evaluated in networks else [problem],
            "Choose one of them.",
        )
        self.checkpoints = _chosen(self.hparams["checkpointer"], average)
        missing = average - len(self.checkpoints)
        refuse(
            str(source),
            [f"{missing} of {average} checkpoints are missing in {folder}/save"]
            if missing
            else [],
            f"{advice} Training keeps the last --checkpoints_kept=N."
            if average > 1
            else advice,
        )
        self.device = device
        self.folder = folder
        self.encoder = self.module(evaluated)

    def module(self, name: str) -> nn.Module:
        """Module of the YAML with its saved weights, on the device.

        Arguments
        ---------
        name : str
            Its key among the recoverables.

        Raises
        ------
        BadInputError
            If the weights are of another network than the YAML has.
        """
        module, weights = self.hparams[name], self.weights(name)
        refuse(
            f"{name} of {self.checkpoints[0].path}",
            misfits(weights, module.state_dict()),
            f"Correct {self.folder}/hyperparams.yaml: it has to describe the "
            "network that was trained. CSC trained before the attention over "
            "embeddings themselves needs 'aggregation: value_map'.",
        )
        module.load_state_dict(weights)
        return module.eval().to(self.device)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Saved tensors of a module, averaged over the chosen checkpoints.

        Arguments
        ---------
        name : str
            Of the recoverable in the YAML.

        Returns
        -------
        dict
            For load_state_dict.
        """
        load = partial(torch.load, weights_only=True)
        return average_checkpoints(self.checkpoints, name, load)


class StockEncoder(nn.Module):
    """A SpeechBrain speaker model as an encoder of waveforms.

    Arguments
    ---------
    classifier : speechbrain.inference.classifiers.EncoderClassifier
        Or `SpeakerRecognition`.
    """

    def __init__(self, classifier: EncoderClassifier):
        super().__init__()
        self.classifier = classifier
        network = getattr(classifier.mods, "embedding_model", None)
        self.takes_lengths = isinstance(network, ECAPA_TDNN)  # as ViewEncoder

    def forward(
        self, waves: torch.Tensor, lengths: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Embeddings of (B, T) waves of (B,) samples (all of T); (B, D)."""
        if lengths is None:
            return self.classifier.encode_batch(waves).flatten(1)
        parts = self.classifier.mods
        features, frames = normalised_features(
            waves.float(), parts.compute_features, parts.mean_var_norm, lengths
        )
        return parts.embedding_model(features, frames).flatten(1)


class Model(NamedTuple):
    """What verification needs of a source.

    Arguments
    ---------
    encoder : torch.nn.Module
        (B, T) waveforms to `Slots` or (B, D).
    method : str
        Its name.
    seed : int or None
        Of the training run.
    sample_rate : int
        Hz.
    aggregator : callable or None
        Enrolment embeddings (K, D) to (D,), where the method has one.
    """

    encoder: nn.Module
    method: str
    seed: Optional[int]
    sample_rate: int
    aggregator: Optional[Callable[[torch.Tensor], torch.Tensor]]


def load_model(
    source: str, device: str, trust: bool, network: Optional[str] = None
) -> Model:
    """Model of a training folder, a SpeechBrain model folder or a Hub id.

    Arguments
    ---------
    source : str
        A folder of train.py (with `save`), any folder or Hub id that
        `EncoderClassifier.from_hparams` takes.
    device : str
        Where the encoder goes.
    trust : bool
        Whether YAML that is not in a local folder may be run.
    network : str, optional
        Of a folder of train.py, see `Pretrained`.

    Returns
    -------
    Model

    Raises
    ------
    BadInputError
        If it is no model, or not local and not trusted.
    """
    folder = Path(source)
    _refuse_chain(folder)
    if (folder / "save").is_dir() or (folder.is_dir() and not any_yaml(folder)):
        run = Pretrained(source, device, network=network)
        aggregator = "aggregator" in run.checkpoints[0].paramfiles
        return Model(
            run.encoder,
            run.hparams["method"],
            run.hparams["seed"],
            run.hparams["sample_rate"],
            run.module("aggregator").enrol if aggregator else None,
        )
    refuse(
        str(source),
        [f"network is {network}; only train.py's folders have one to choose"]
        if network
        else [],
        "Leave it out.",
    )
    problem = "it is no local folder; its YAML would be fetched and run as code"
    refuse(
        str(source),
        [] if folder.is_dir() or trust else [problem],
        "Correct the path, or give --trust_source=True if you trust its owner.",
    )
    classifier = _fetched(source, device)
    rate = getattr(classifier.hparams, "sample_rate", 16000)
    name = folder.name.replace(" ", "_")
    return Model(StockEncoder(classifier).eval(), name, None, rate, None)


def any_yaml(folder: Path) -> bool:
    """Whether a folder has the YAML of a model."""
    return (folder / "hyperparams.yaml").is_file()


def _refuse_chain(folder):
    """Rounds of pseudo labels are several trainings; name the last."""
    rounds = [folder / "round_1" / "train"]
    while rounds[-1].is_dir():
        rounds.append(folder / f"round_{len(rounds) + 1}" / "train")
    del rounds[-1]
    refuse(
        str(folder),
        [f"it holds {len(rounds)} rounds of pseudo labels"] if rounds else [],
        f"Give the training of one, such as {rounds[-1]}." if rounds else "",
    )


def _fetched(source: str, device: str) -> Any:
    try:
        # Without savedir: an old one would win over a changed folder.
        return EncoderClassifier.from_hparams(
            source, run_opts={"device": str(device)}
        )
    except Exception as error:  # of fetching, the YAML or what it names
        refuse(
            str(source),
            [f"{type(error).__name__}: {error}"],
            "Give the output folder of train.py, or a speaker model that "
            "SpeechBrain's EncoderClassifier.from_hparams loads.",
        )


def _elsewhere(folder):
    """What a run's YAML gets where the run has moved to.

    References are resolved in it, so each place of a path needs its own.
    """
    without = {"noise_folder": None, "rir_folder": None}  # for training only
    return {
        "output_folder": str(folder),
        "checkpointer": {"checkpoints_dir": str(folder / "save")},
        "augment": without,
        **without,
    }


def _chosen(checkpointer, average):
    """The chosen checkpoint, or the last ones as far as none is missing."""
    if average > 1:
        found = checkpointer.find_checkpoints(max_key="epoch")
        return [
            one
            for back, one in enumerate(found[:average])
            if one.meta["epoch"] == found[0].meta["epoch"] - back
        ]
    chosen = checkpointer.chosen()
    return [chosen] if chosen else []
