"""Probabilistic linear discriminant analysis as a scoring backend."""

import numpy as np
from speechbrain.processing import PLDA_LDA

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.scoring import unit


class PLDA:
    """Log-likelihood ratios of two embeddings under a two-covariance model.

    Embeddings are centred, whitened and brought to length one; SpeechBrain's
    EM finds the speaker subspace. A score is the inner product of what
    `enrol` and `test` return, so trials and cohorts cost what a cosine costs.

    Source: Garcia-Romero, Espy-Wilson, "Analysis of i-vector length
    normalization in speaker recognition systems", 2011 (equations 7 to 9 for
    the score); training: `speechbrain.processing.PLDA_LDA.PLDA`.

    Arguments
    ---------
    vectors : numpy.ndarray
        (K, D) training embeddings.
    speakers : numpy.ndarray
        (K,) their speakers.
    rank : int
        Of the speaker subspace; no more than D and speakers - 1 are used.
    iterations : int
        Of EM.

    Raises
    ------
    BadInputError
        If there are fewer vectors than dimensions, no speaker has two, or
        there are fewer than two speakers.

    Example
    -------
    >>> draw = np.random.default_rng(0)
    >>> speakers = np.repeat(np.arange(20), 5)
    >>> vectors = draw.normal(size=(20, 4))[speakers]
    >>> vectors = vectors + 0.1 * draw.normal(size=(100, 4))
    >>> plda = PLDA(vectors, speakers, rank=2)
    >>> scores = plda.enrol(vectors[:1]) @ plda.test(vectors[[1, 5]]).T
    >>> bool(scores[0, 0] > scores[0, 1])
    True
    """

    def __init__(
        self,
        vectors: np.ndarray,
        speakers: np.ndarray,
        rank: int = 100,
        iterations: int = 10,
    ):
        _, codes, counts = np.unique(
            speakers, return_inverse=True, return_counts=True
        )
        problems = []
        if len(vectors) <= vectors.shape[1]:
            problems.append(
                f"{len(vectors)} embeddings of {vectors.shape[1]} dimensions "
                "were given; there must be more embeddings than dimensions"
            )
        if len(counts) < 2 or counts.max(initial=0) < 2:
            problems.append(
                f"{len(counts)} speakers have at most "
                f"{counts.max(initial=0)} embeddings; 2 of each are needed"
            )
        refuse("PLDA", problems, "Give a larger labelled cohort.")
        vectors = vectors.astype(np.float64)
        self.centre = vectors.mean(0)
        values, axes = np.linalg.eigh(np.cov(vectors.T, bias=True))
        kept = values > 1e-10 * values.max()  # a constant feature has none
        self.whitening = axes[:, kept] / np.sqrt(values[kept])
        self.unwhitening = (axes[:, kept] * np.sqrt(values[kept])).T
        model = PLDA_LDA.PLDA(
            rank_f=min(rank, int(kept.sum()), len(counts) - 1),
            nb_iter=iterations,
        )
        model.plda(_Statistics(self.prepare(vectors), codes, counts))
        self.mean = model.mean
        self._set_score(model.F, model.Sigma)

    def _set_score(self, factors, residual):
        between = factors @ factors.T
        total = between + residual
        inverse = np.linalg.inv(total)
        apart = np.linalg.inv(total - between @ inverse @ between)
        self.own = (inverse - apart) / 2
        self.cross = inverse @ between @ apart
        # Half the log-determinants of (total, total) under "two speakers"
        # less those of the joint covariance under "one speaker".
        joint = np.block([[total, between], [between, total]])
        self.constant = (
            np.linalg.slogdet(total)[1] - np.linalg.slogdet(joint)[1] / 2
        )

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """Centred, whitened vectors of length one, (..., D) to (..., D')."""
        whitened = (vectors - self.centre) @ self.whitening
        return unit(whitened)

    def restore(self, prepared: np.ndarray) -> np.ndarray:
        """Embeddings, (..., D') to (..., D)."""
        return prepared @ self.unwhitening + self.centre

    def _parts(self, vectors):
        centred = self.prepare(vectors) - self.mean
        own = np.einsum("...d,...d->...", centred @ self.own, centred)
        return centred, own[..., None], np.ones((*own.shape, 1))

    def enrol(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of enrolment models, (..., D) to (..., D' + 2) float32."""
        centred, own, ones = self._parts(vectors)
        parts = [centred @ self.cross, own + self.constant, ones]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def test(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of test utterances, (..., D) to (..., D' + 2) float32."""
        centred, own, ones = self._parts(vectors)
        parts = [centred, ones, own]
        return np.concatenate(parts, axis=-1).astype(np.float32)


class _Statistics(PLDA_LDA.StatObject_SB):
    """SpeechBrain's container; sums by speaker in one pass, not one each."""

    def __init__(self, vectors, codes, counts):
        super().__init__(
            modelset=codes,
            segset=np.arange(len(codes)),
            start=np.zeros(len(codes)),
            stop=np.zeros(len(codes)),
            stat0=np.ones((len(codes), 1)),
            stat1=vectors,
        )
        self.counts = counts

    def sum_stat_per_model(self):
        order = self.modelset.argsort(kind="stable")
        starts = np.append(0, self.counts.cumsum()[:-1])
        sums = np.add.reduceat(self.stat1[order], starts)
        names = np.arange(len(self.counts))
        counts = self.counts.astype(np.float64)
        container = PLDA_LDA.StatObject_SB(
            names, names, names, names, counts[:, None].copy(), sums
        )
        return container, counts
