"""Clusters to labels: which are trusted, and how good they are."""

from typing import Optional

import numpy as np
from scipy.stats import spearmanr

from speechbrain_ssl.checks import check_sizes, refuse


def trusted(
    labels: np.ndarray,
    silhouettes: np.ndarray,
    least_silhouette: float = 0.0,
    smallest_cluster: int = 2,
) -> np.ndarray:
    """Rows that are certain enough, in clusters that are large enough.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,) clusters.
    silhouettes : numpy.ndarray
        (N,) -1 to 1.
    least_silhouette : float
        Utterances below it are left out; below 0 another cluster is nearer.
    smallest_cluster : int
        Clusters that then have fewer utterances are left out.

    Returns
    -------
    numpy.ndarray
        Row numbers, in their order.

    Raises
    ------
    BadInputError
        If fewer than two clusters are left.

    Example
    -------
    >>> trusted(np.array([0, 0, 1, 1, 2]), np.array([0.5, 0.1, 0.9, 0.8, 0]))
    array([0, 1, 2, 3])
    """
    check_sizes(
        least_silhouette=(
            -1 <= least_silhouette < 1,
            least_silhouette,
            "-1 to 1",
        ),
        smallest_cluster=(
            smallest_cluster >= 1,
            smallest_cluster,
            "1 or more",
        ),
    )
    certain = silhouettes >= least_silhouette
    sizes = np.bincount(labels[certain], minlength=labels.max() + 1)
    large = sizes >= smallest_cluster
    problems = []
    if large.sum() < 2:
        problems = [
            f"least_silhouette {least_silhouette} keeps {certain.sum()} of "
            f"{len(labels)} utterances; the highest is {silhouettes.max():.3f}",
            f"smallest_cluster {smallest_cluster} then keeps {large.sum()} of "
            f"{len(sizes)} clusters; the largest has {sizes.max()} utterances",
        ]
    refuse(
        "clusters to train on, of which two are needed",
        problems,
        "Lower the one that leaves out too much.",
    )
    return np.flatnonzero(certain & large[labels])


def agreement(labels: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """How far two labellings agree.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,) clusters.
    others : numpy.ndarray
        (N,) speakers, or clusters of before.

    Returns
    -------
    dict
        `nmi`, `ari` and `purity`: the share of utterances that belong to the
        most frequent of the others in their cluster.

    Example
    -------
    >>> agreement(np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "a"]))[
    ...     "purity"
    ... ]
    0.75
    """
    from sklearn.metrics import (
        adjusted_rand_score,
        normalized_mutual_info_score,
    )
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(others, labels, sparse=True)
    return {
        "nmi": float(normalized_mutual_info_score(others, labels)),
        "ari": float(adjusted_rand_score(others, labels)),
        "purity": float(table.max(axis=0).sum() / len(labels)),
    }


def describe(
    labels: np.ndarray,
    kept: np.ndarray,
    before: Optional[np.ndarray] = None,
    speakers: Optional[np.ndarray] = None,
) -> dict:
    """Figures of a round's labels, for metrics.json.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,) clusters of all utterances.
    kept : numpy.ndarray
        Rows that are trained on.
    before : numpy.ndarray, optional
        (N,) clusters of the round before.
    speakers : numpy.ndarray, optional
        (N,) true labels, for analysis only.

    Returns
    -------
    dict
        `clusters` and `sizes` of what is kept (least, median, most),
        `kept`, a share, and where it applies `stability` (NMI with the round
        before) and `speakers`: `agreement` of what is kept.
    """
    sizes = np.unique(labels[kept], return_counts=True)[1]
    figures = {
        "found": int(labels.max() + 1),
        "clusters": len(sizes),
        "sizes": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())],
        "kept": len(kept) / len(labels),
    }
    if before is not None:
        figures["stability"] = agreement(labels, before)["nmi"]
    if speakers is not None:
        figures["speakers"] = agreement(labels[kept], speakers[kept])
    return figures


def tracking(considered: list[dict]) -> Optional[float]:
    """Rank correlation of the silhouette with the ARI of true speakers.

    Arguments
    ---------
    considered : list of dict
        With `silhouette` and `ari` for each number of clusters.

    Returns
    -------
    float or None
        -1 to 1; None for fewer than three numbers or a constant.

    Example
    -------
    >>> tracking([{"silhouette": s, "ari": s} for s in (0.1, 0.2, 0.3)])
    1.0
    """
    pairs = np.array([[c["silhouette"], c["ari"]] for c in considered])
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None
    return float(round(spearmanr(*pairs.T).statistic, 6))
