"""Fine-tuning of a trained encoder for a label: classifier first, then all."""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checkpoints import SafeCheckpointer
from speechbrain_ssl.dataio.views import groups
from speechbrain_ssl.evaluation.embed import embed
from speechbrain_ssl.evaluation.scoring import loudest


class FineTuneBrain(EmbeddingBrain):
    """Classifier on embeddings; the encoder joins after its first steps.

    Until then the encoder is in evaluation mode and gets no gradient, so that
    neither its weights nor its batch norm change. Of an encoder that
    separates, the loudest slot is classified. One process only: the encoder
    is called once a view.
    """

    MODULES_NEEDED = ("encoder", "classifier")
    HPARAMS_NEEDED = (*EmbeddingBrain.HPARAMS_NEEDED, "classifier_steps")

    def embed(self, batch):
        """Embeddings of all views.

        Arguments
        ---------
        batch : dict
            Of `ViewDataset`.

        Returns
        -------
        torch.Tensor
            (B, V, D).
        """
        learning = self.progress >= self.hparams.classifier_steps
        self.modules.encoder.train(learning)
        views = [view for group in groups(batch) for view in group.unbind(1)]
        with torch.set_grad_enabled(learning):
            outputs = [_vectors(self.modules.encoder(view)) for view in views]
        return torch.stack(outputs, dim=1)


def _vectors(output):
    """(B, D) of an encoder's output, whatever it is."""
    if isinstance(output, torch.Tensor):
        return output
    slots = output.estimates.detach().square().sum(-1).argmax(1)
    return output.embeddings[torch.arange(len(slots)), slots]


class FineTune:
    """Fine-tunes a copy of an encoder for every split and predicts its test.

    The classifier is a softmax over cosines, `AAMLoss` without margin.
    Training hears crops, the test whole files. Nothing is kept but the
    predictions; a killed run starts again.

    Arguments
    ---------
    classifier : callable
        (embedding_dim, classes) to a loss of embeddings (B, V, D) and labels
        with a `weight` (classes, 1, D).
    batches : callable
        Manifest rows to a batch sampler.
    examples : callable
        Manifest rows and entries to a dataset of views.
    opt_class : callable
        Parameters to an optimiser.
    learning_rate : callable
        Total of steps to a schedule.
    epochs, classifier_epochs : int
        Of all, and of the first that train the classifier alone.
    max_grad_norm : float
        See `EmbeddingBrain.clip`.
    """

    def __init__(
        self,
        classifier: Callable[..., nn.Module],
        batches: Callable,
        examples: Callable,
        opt_class: Callable,
        learning_rate: Callable,
        epochs: int,
        classifier_epochs: int,
        max_grad_norm: float,
    ):
        self.classifier, self.opt_class = classifier, opt_class
        self.batches, self.examples = batches, examples
        self.learning_rate, self.max_grad_norm = learning_rate, max_grad_norm
        self.epochs, self.classifier_epochs = epochs, classifier_epochs

    def __call__(
        self,
        encoder: nn.Module,
        rows: pd.DataFrame,
        labels: np.ndarray,
        splits: Sequence[Any],
        sample_rate: int,
        run_opts: dict[str, Any],
    ) -> np.ndarray:
        """Predicted classes.

        Arguments
        ---------
        encoder : torch.nn.Module
            (B, T) waveforms to (B, D) or `Slots`; stays as it is.
        rows : pandas.DataFrame
            N manifest rows.
        labels : numpy.ndarray
            (N,).
        splits : sequence of Split
            See `evaluation.probe`.
        sample_rate : int
            Hz of the encoder.
        run_opts : dict
            SpeechBrain's run options.

        Returns
        -------
        numpy.ndarray
            (N,) classes; None for rows that no split tests.
        """
        classes, entries = np.unique(labels, return_inverse=True)
        predictions = np.full(len(labels), None, dtype=object)
        for split in splits:
            with tempfile.TemporaryDirectory() as folder:
                examples = self.examples(
                    rows=rows.iloc[split.train],
                    entries=entries[split.train],
                    sample_rate=sample_rate,
                )
                brain = self._fit(
                    # A teacher's parameters require no gradient.
                    copy.deepcopy(encoder).eval().requires_grad_(),
                    rows.iloc[split.train],
                    examples,
                    len(classes),
                    run_opts,
                    Path(folder),
                )
            tested = embed(brain.evaluated, rows.iloc[split.test], brain.device)
            weight = brain.hparams.classifier.weight[:, 0].detach().cpu()
            cosines = torch.from_numpy(loudest(tested)) @ F.normalize(weight).T
            predictions[split.test] = classes[cosines.argmax(1).numpy()]
        return predictions

    def _fit(self, encoder, rows, examples, count, run_opts, folder):
        wave = torch.zeros(1, 16000, device=next(encoder.parameters()).device)
        with torch.no_grad():
            dim = _vectors(encoder(wave)).shape[1]
        modules = {
            "encoder": encoder,
            "classifier": self.classifier(dim, count),
        }
        sampler = self.batches(rows=rows)
        hparams = {
            "method": "fine-tuning",
            "loss_weights": {"classifier": 1.0},
            "learning_rate": self.learning_rate(
                steps=self.epochs * len(sampler)
            ),
            "classifier_steps": self.classifier_epochs * len(sampler),
            "max_grad_norm": self.max_grad_norm,
            "output_folder": str(folder),
            "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
            **modules,
        }
        brain = FineTuneBrain(
            modules,
            self.opt_class,
            hparams,
            run_opts,
            SafeCheckpointer(folder / "save", modules),
            sampler,
        )
        loader = torch.utils.data.DataLoader(examples, batch_sampler=sampler)
        brain.fit(EpochCounter(self.epochs), loader)
        return brain
