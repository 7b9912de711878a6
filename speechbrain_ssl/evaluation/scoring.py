"""Scores of trials from tables of embeddings."""

import numpy as np

from speechbrain_ssl.evaluation.embed import Embeddings

RULES = ("loudest", "best")
BLOCK = 200_000  # trials scored at a time; bounds memory


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one.

    Arguments
    ---------
    vectors : numpy.ndarray
        (..., D).

    Returns
    -------
    numpy.ndarray
        (..., D); a zero vector stays zero.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def loudest(embeddings: Embeddings) -> np.ndarray:
    """The vector of each utterance's loudest slot.

    Arguments
    ---------
    embeddings : Embeddings
        N utterances.

    Returns
    -------
    numpy.ndarray
        (N, D) unit vectors.
    """
    slots = embeddings.energies.argmax(1)
    return unit(embeddings.vectors[np.arange(len(slots)), slots])


def cosine_scores(
    enrol: Embeddings,
    test: Embeddings,
    enrol_rows: np.ndarray,
    test_rows: np.ndarray,
    rule: str,
) -> np.ndarray:
    """Cosine of enrolment and test utterances, one score a trial.

    The enrolment is one talker: its loudest slot counts. Of the test
    utterance either the `loudest` slot counts (one talker) or the `best`, the
    highest cosine over all slots (mixtures). Both are the same for encoders
    that do not separate.

    Arguments
    ---------
    enrol, test : Embeddings
        Tables of N and M utterances.
    enrol_rows, test_rows : numpy.ndarray
        (trials,) row numbers of the two tables.
    rule : str
        `loudest` or `best`.

    Returns
    -------
    numpy.ndarray
        (trials,) float32, -1 to 1.

    Raises
    ------
    ValueError
        If the rule is neither of the two.

    Example
    -------
    >>> table = Embeddings(
    ...     np.eye(2, dtype=np.float32)[:, None], np.ones((2, 1))
    ... )
    >>> cosine_scores(table, table, np.array([0, 0]), np.array([0, 1]), "best")
    array([1., 0.], dtype=float32)
    """
    if rule not in RULES:
        raise ValueError(f"rule is '{rule}'; it is one of {RULES}")
    models = loudest(enrol)
    slots = loudest(test)[:, None] if rule == "loudest" else unit(test.vectors)
    scores = np.empty(len(enrol_rows), np.float32)
    for first in range(0, len(scores), BLOCK):
        part = slice(first, first + BLOCK)
        pairs = np.einsum(
            "nd,ncd->nc", models[enrol_rows[part]], slots[test_rows[part]]
        )
        scores[part] = pairs.max(1)
    return scores
