"""Enrolment models of several cuts, and utterances scored in parts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import pandas as pd
import torch
from torch import nn

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.embed import (
    Embeddings,
    EvenPieces,
    JoinedCuts,
    Utterances,
    embed,
)
from speechbrain_ssl.evaluation.scoring import Backend, Scorer, loudest, unit

ENROLMENTS = ("joined", "mean", "aggregator")
PIECES = 5
PIECE_SECONDS = 3.015


class Setting(NamedTuple):
    """How utterances become scores.

    Arguments
    ---------
    scorer : Scorer
        Backend and normalisation; by default the plain cosine.
    enrolment : str
        Of a model with several cuts: their audio `joined`, the `mean` of
        their embeddings as the backend prepares them, or what `aggregator`
        makes of them.
    aggregator : callable, optional
        (K, D) unit vectors to (D,), such as
        `CrossConditionAggregator.enrol`.
    piece_samples : int
        Above 0, each utterance is embedded whole and in five evenly spaced
        pieces of this length, for a `TwoPart` backend.
    measures : bool
        Report the quality measures that calibration can use.
    tables : pathlib.Path, optional
        Folder where embeddings of whole, clean utterances are kept.
    padding : float
        Share of those utterances' batches that may be padding.

    Example
    -------
    >>> Setting().enrolment
    'mean'
    """

    scorer: Scorer = Scorer()
    enrolment: str = "mean"
    aggregator: Optional[Callable[[torch.Tensor], torch.Tensor]] = None
    piece_samples: int = 0
    measures: bool = False
    tables: Optional[Path] = None
    padding: float = 0.0


class TwoPart:
    """Mean of the whole utterances' score and the mean one of their pieces.

    Source: Li, Mak 2022, arXiv:2210.16636 (authors' evaluation code: five
    pieces of 3.015 s, cosines of all 25 pairs). The mean of all pairs is the
    inner product of the means, so one product gives the score.

    Differs: any backend without a bias can take the cosine's place.

    Arguments
    ---------
    backend : Backend
        Of the parts.
    parts : int
        In a row of embeddings: the whole, then its pieces.

    Example
    -------
    >>> from speechbrain_ssl.evaluation.scoring import Cosine
    >>> two_part, one = TwoPart(Cosine(), parts=3), np.array([[1.0, 1, -1]])
    >>> (two_part.enrol(one) @ two_part.test(one).T).round(6)
    array([[0.5]])
    """

    def __init__(self, backend: Backend, parts: int = PIECES + 1):
        self.backend, self.parts = backend, parts

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """(..., parts * D) to (..., parts * D')."""
        return self._each(vectors, self.backend.prepare)

    def restore(self, prepared: np.ndarray) -> np.ndarray:
        """(..., parts * D') to (..., parts * D)."""
        return self._each(prepared, self.backend.restore)

    def enrol(self, vectors: np.ndarray) -> np.ndarray:
        """(..., parts * D) to (..., 2 * D')."""
        return self._halves(vectors, self.backend.enrol)

    def test(self, vectors: np.ndarray) -> np.ndarray:
        """(..., parts * D) to (..., 2 * D')."""
        return self._halves(vectors, self.backend.test)

    def _each(self, vectors, change):
        shape = vectors.shape[:-1]
        return change(vectors.reshape(*shape, self.parts, -1)).reshape(
            *shape, -1
        )

    def _halves(self, vectors, change):
        parts = change(vectors.reshape(*vectors.shape[:-1], self.parts, -1))
        halves = [parts[..., 0, :], parts[..., 1:, :].mean(-2)]
        return np.concatenate(halves, axis=-1) / np.sqrt(2)


def embed_in_parts(
    encoder: nn.Module,
    waves: Utterances,
    device: torch.device,
    piece_samples: int,
    label: str = "embeddings",
    show: bool = True,
) -> Embeddings:
    """Embeddings of utterances, with those of their pieces behind.

    Arguments
    ---------
    encoder, device, label, show
        As for `embed`.
    waves : Utterances
        Or `JoinedCuts`.
    piece_samples : int
        Of a piece; 0 for none.

    Returns
    -------
    Embeddings
        (N, C, D), or with pieces (N, 1, 6 D) unit vectors of the loudest
        slots: whole, then the pieces.
    """
    whole = embed(encoder, waves, device, None, label, show)
    if not piece_samples:
        return whole
    pieces = EvenPieces(waves, PIECES, piece_samples)
    pieces = embed(encoder, pieces, device, None, f"{label} pieces", show)
    whole, pieces = unit(loudest(whole)), unit(loudest(pieces))
    vectors = np.concatenate([whole, pieces.reshape(len(whole), -1)], axis=1)
    return Embeddings(vectors[:, None], np.ones((len(whole), 1), np.float32))


def enrol_models(
    encoder: nn.Module,
    rows: pd.DataFrame,
    members: Sequence[np.ndarray],
    table: Embeddings,
    setting: Setting,
    device: torch.device,
) -> Embeddings:
    """One embedding for each enrolment model.

    Arguments
    ---------
    encoder, device
        As for `embed`.
    rows : pandas.DataFrame
        Manifest rows.
    members : sequence of numpy.ndarray
        Rows of the cuts of each model.
    table : Embeddings
        Of the rows.
    setting : Setting
        `enrolment` says how.

    Returns
    -------
    Embeddings
        (models, 1, D), or what `joined` audio gives.

    Raises
    ------
    BadInputError
        If the enrolment is unknown or has no aggregator.
    """
    how, problems = setting.enrolment, []
    if how not in ENROLMENTS:
        problems.append(f"'{how}' was given; it is one of {ENROLMENTS}")
    elif how == "aggregator" and setting.aggregator is None:
        problems.append("the model has no aggregator")
    elif how == "aggregator" and setting.piece_samples:
        problems.append("an aggregator takes no embeddings of pieces")
    refuse("enrolment", problems, "Use joined audio or the mean.")
    if how == "joined":
        waves = JoinedCuts(rows, members)
        samples = setting.piece_samples
        return embed_in_parts(encoder, waves, device, samples, "enrolment")
    cuts, backend = loudest(table), setting.scorer.backend
    if how == "mean":
        cuts = backend.prepare(cuts)
        means = np.stack([cuts[own].mean(0) for own in members])
        vectors = backend.restore(means).astype(np.float32)
    else:
        cuts = unit(cuts)
        with torch.no_grad():
            vectors = np.stack(
                [
                    setting.aggregator(
                        torch.from_numpy(cuts[own]).to(device)
                    ).cpu()
                    for own in members
                ]
            )
    return Embeddings(vectors[:, None], np.ones((len(members), 1), np.float32))
