"""A trained model in the form that SpeechBrain's interfaces load."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.processing.features import InputNormalization
from torch import nn

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.embed import embed
from speechbrain_ssl.lobes.csc import SeparativeECAPA, SeparativeEncoder
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.lobes.slots import LoudestSlot
from speechbrain_ssl.lobes.teacher import Teacher
from speechbrain_ssl.losses.aam_supcon import AAMLoss
from speechbrain_ssl.pretrained import Pretrained

MOST_UTTERANCES = 500  # behind the mean of the embeddings


class StockModel(NamedTuple):
    """What goes into a model folder, apart from texts.

    Arguments
    ---------
    encoder : torch.nn.Module
        ViewEncoder or separative encoder with the evaluated weights.
    yaml : str
        hyperparams.yaml.
    states : dict
        State of a torch module for each `<name>.ckpt`.
    savers : dict
        Objects that write `<name>.ckpt` themselves.
    speakers : int
        Of the classifier; 0 without one.
    clusters : bool
        Whether what the manifest calls speakers are clusters.
    """

    encoder: nn.Module
    yaml: str
    states: dict[str, dict[str, torch.Tensor]]
    savers: dict[str, Any]
    speakers: int
    clusters: bool

    @property
    def separates(self) -> bool:
        """Whether the model needs this package, being a separative encoder."""
        return not isinstance(self.encoder, ViewEncoder)

    def write(self, folder: Path) -> None:
        """Write hyperparams.yaml and the .ckpt files.

        Arguments
        ---------
        folder : pathlib.Path
            That exists.
        """
        (folder / "hyperparams.yaml").write_text(self.yaml, encoding="utf-8")
        for name, state in self.states.items():
            torch.save(state, folder / f"{name}.ckpt")
        for name, saver in self.savers.items():
            save = getattr(saver, "save", None) or saver._save
            save(folder / f"{name}.ckpt")


def stock_model(model: Pretrained, train: pd.DataFrame) -> StockModel:
    """Turn a training folder's model into stock classes.

    Arguments
    ---------
    model : Pretrained
        Of the training folder.
    train : pandas.DataFrame
        Its training manifest: speakers of a classifier, and up to 500
        utterances for the mean of the embeddings.

    Returns
    -------
    StockModel

    Raises
    ------
    BadInputError
        If the encoder is not one of this package, or what it embeds with is
        not a class of SpeechBrain.
    """
    encoder = model.encoder
    if isinstance(encoder, Teacher):
        encoder = encoder.encoder
    kinds = (ViewEncoder, SeparativeECAPA, SeparativeEncoder)
    refuse(
        str(model.folder),
        []
        if isinstance(encoder, kinds)
        else [f"its encoder is a {type(encoder).__name__}"],
        f"Exported are {', '.join(kind.__name__ for kind in kinds)}.",
    )
    nodes = YAML().load(model.folder / "hyperparams.yaml")
    states, savers, speakers = {}, {}, []
    if isinstance(encoder, ViewEncoder):
        node = nodes["encoder"]
        embedding_model = node["embedding_model"]
        tag = str(embedding_model.tag.value)
        refuse(
            str(model.folder),
            []
            if tag.startswith("!new:speechbrain.")
            else [f"embedding_model is {tag}, no class of SpeechBrain"],
            "Stock SpeechBrain could not load it.",
        )
        text = FEATURES.format(
            n_mels=node.get("n_mels", 80),
            top_hz=node.get("top_hz", "null") or "null",
            n_fft=encoder.compute_features.compute_STFT.n_fft,
        ) + _dump("embedding_model", embedding_model)
        states["embedding_model"] = encoder.embedding_model.state_dict()
        speakers = _add_classifier(model, train, states, savers)
    else:
        text = SEPARATIVE + _dump("separative_encoder", nodes["encoder"])
        text += LOUDEST
        states["embedding_model"] = LoudestSlot(encoder).state_dict()
    savers["mean_var_norm_emb"] = _embedding_mean(encoder, train)
    head = f"sample_rate: {model.hparams['sample_rate']}\n"
    if speakers:
        text += CLASSIFIER.format(
            dim=states["classifier"]["weight"].shape[1], speakers=len(speakers)
        )
    return StockModel(
        encoder,
        head + text + _tail([*states, *savers], len(speakers) > 0),
        states,
        savers,
        len(speakers),
        _clusters(train),
    )


def _clusters(train):
    """Whether the speakers of a manifest are clusters of `PseudoLabels`."""
    return train["spk_id"].str.fullmatch(r"cluster_\d+").all()


FEATURES = """\
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: {n_mels}
    sample_rate: !ref <sample_rate>
    f_max: {top_hz}
    n_fft: {n_fft}
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
"""
SEPARATIVE = """\
compute_features: !new:torch.nn.Identity
mean_var_norm: !new:speechbrain.nnet.containers.LengthsCapableSequential
    - !ref <compute_features>
"""
LOUDEST = """\
embedding_model: !new:speechbrain_ssl.lobes.slots.LoudestSlot
    encoder: !ref <separative_encoder>
"""
CLASSIFIER = """\
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: {dim}
    out_neurons: {speakers}
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
"""
MEAN = """\
mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
"""


def _tail(loadables, classifies):
    names = ["compute_features", "mean_var_norm", "embedding_model"]
    names += ["mean_var_norm_emb", *(["classifier"] if classifies else [])]
    lines = [MEAN + "modules:"]
    lines += [f"    {name}: !ref <{name}>" for name in names]
    # No `paths`: files are those beside this one, on disk and on the Hub.
    lines += [
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer"
    ]
    lines += ["    loadables:"]
    lines += [f"        {name}: !ref <{name}>" for name in loadables]
    return "\n".join(lines) + "\n"


def _dump(name, node):
    """YAML of a node without comments, anchors and aliases."""
    yaml = YAML()
    yaml.indent(mapping=4, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    stream = io.StringIO()
    yaml.dump({name: _bare(node)}, stream)
    return stream.getvalue()


def _bare(node):
    if isinstance(node, CommentedMap):
        bare = CommentedMap((key, _bare(value)) for key, value in node.items())
    elif isinstance(node, CommentedSeq):
        bare = CommentedSeq(_bare(value) for value in node)
        bare.fa.set_flow_style()
    else:
        return node
    if node.tag.value is not None:
        bare.yaml_set_ctag(node.tag)
    return bare


def _add_classifier(model, train, states, savers) -> list[str]:
    """Trained class vectors as SpeechBrain's cosine classifier."""
    names = [
        name
        for name, module in model.hparams["modules"].items()
        if isinstance(module, AAMLoss) and model.hparams["loss_weights"][name]
    ]
    if not names:
        return []
    weight = model.weights(names[0])["weight"]  # (classes, sub-centres, D)
    if weight.shape[1] > 1:  # the stock classifier has one vector a class
        return []
    speakers = model.hparams["batches"](rows=train).names
    known = set() if _clusters(train) else set(train["spk_id"])
    if not set(speakers) <= known:  # classes are recordings or clusters
        return []
    states["classifier"] = {"weight": weight[:, 0].clone()}
    labels = CategoricalEncoder()
    labels.update_from_iterable(speakers)
    savers["label_encoder"] = labels
    return speakers


@torch.no_grad()
def _embedding_mean(encoder, train) -> InputNormalization:
    """Global mean of training embeddings, for `normalize=True`."""
    rows = np.linspace(0, len(train) - 1, min(len(train), MOST_UTTERANCES))
    rows = train.iloc[rows.astype(int)].reset_index(drop=True)
    device = next(encoder.parameters()).device
    table = embed(encoder, rows, device, label="mean of embeddings")
    slots = table.energies.argmax(1)
    vectors = torch.from_numpy(table.vectors[np.arange(len(slots)), slots])
    norm = InputNormalization(norm_type="global", std_norm=False)
    norm(vectors.unsqueeze(1), torch.ones(len(vectors)))
    return norm
