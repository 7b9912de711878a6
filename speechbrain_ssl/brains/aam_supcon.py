"""AAM-SupCon: margin softmax and supervised contrast on the same views."""

from pathlib import Path

import torch

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.schedules import value_at


class AAMBrain(EmbeddingBrain):
    """Every named loss over all views of labelled utterances.

    `aam` classifies the training speakers, which are counted, with an angular
    margin that may follow a schedule. `embedding_weights` names a file of
    weights to start from, such as an exported label-free model's.
    """

    MODULES_NEEDED = ("encoder", "aam")
    HPARAMS_NEEDED = (*EmbeddingBrain.HPARAMS_NEEDED, "margin")
    HPARAMS_OPTIONAL = (*EmbeddingBrain.HPARAMS_OPTIONAL, "embedding_weights")

    def __init__(self, modules, opt_class, hparams, *rest, sampler, **more):
        count = len(sampler.names)
        classes = hparams["aam"].classes
        problem = f"it is {classes}, the training manifest has {count} speakers"
        refuse(
            "classes",
            [] if classes in (None, count) else [problem],
            f"Set --classes={count}, or leave it out.",
        )
        if classes is None:
            hparams["aam"].set_classes(count)
        super().__init__(
            modules, opt_class, hparams, *rest, sampler=sampler, **more
        )
        if hparams.get("embedding_weights"):
            model = hparams["encoder"].embedding_model
            start_from(model, Path(hparams["embedding_weights"]))

    def on_fit_batch_start(self, batch, should_step):
        """Also set the margin of this step."""
        super().on_fit_batch_start(batch, should_step)
        self.hparams.aam.margin = value_at(
            self.hparams.margin, self.optimizer_step
        )


class AAMSupConBrain(AAMBrain):
    """Margin softmax, and contrast of all views of the batch.

    `loss_weights` adds `aam` and `supcon`, equally in the paper.

    Source: Li, Mak 2022, arXiv:2210.16636; see the losses.
    """

    MODULES_NEEDED = (*AAMBrain.MODULES_NEEDED, "supcon")

    def terms(self, outputs, batch):
        """Also log what an anchor of the contrastive term meets."""
        terms = super().terms(outputs, batch)
        for name in ("positives", "negatives", "floor"):
            self.add(f"supcon_{name}", getattr(self.hparams.supcon, name))
        return terms


def start_from(model: torch.nn.Module, path: Path) -> None:
    """Load the weights of a file that another run or an export wrote.

    Arguments
    ---------
    model : torch.nn.Module
        The embedding model.
    path : pathlib.Path
        Its `state_dict`; read with weights_only.

    Raises
    ------
    BadInputError
        If there is no such file or it is of another network.
    """
    problem = "there is no such file"
    refuse(
        f"embedding_weights {path}",
        [] if path.is_file() else [problem],
        "Give DIR/embedding_model.ckpt of 'speechbrain-ssl export RUN --to DIR'.",
    )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    ours = {name: tuple(v.shape) for name, v in model.state_dict().items()}
    theirs = {name: tuple(v.shape) for name, v in weights.items()}
    names = sorted(set(ours) | set(theirs))
    refuse(
        f"embedding_weights {path}",
        [
            f"{name} has the shape {theirs.get(name)}; this network has "
            f"{ours.get(name)}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ],
        "Give the same embedding_model as in the run the weights are from.",
    )
    model.load_state_dict(weights)
