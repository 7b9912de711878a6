"""Average linkage on the cosine, without a matrix of all pairs."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn import functional as F

BLOCK = 2**26  # similarities in memory at once: 256 MB


def average_linkage(
    vectors: np.ndarray, threshold: float = 1.0, device: str = "cpu"
) -> np.ndarray:
    """Merges of an agglomerative clustering, nearest first.

    The mean cosine between the members of two clusters is the product of
    their mean unit vectors, so a cluster is one vector and memory is N x D
    (38 MB for 50,000 x 192) instead of N x N. All pairs that are each other's
    nearest are merged at once: for average linkage, where no merge brings a
    cluster nearer to others, that gives the tree of one pair at a time.

    Source: reciprocal nearest neighbours, Murtagh, "A survey of recent
    advances in hierarchical clustering algorithms", 1983.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D), of any length but zero.
    threshold : float
        Mean cosine distance up to which clusters merge, 0 to 2.
    device : str
        Where the products are computed.

    Returns
    -------
    numpy.ndarray
        (merges, 3): a row of either cluster and their distance, in the order
        of the distance; `cut` makes labels of it.

    Example
    -------
    >>> vectors = np.array([[1, 0], [0, 1], [1, 0.1]])
    >>> average_linkage(vectors, threshold=0.5)[:, :2].tolist()
    [[0.0, 2.0]]
    """
    units = torch.as_tensor(vectors, dtype=torch.float, device=device)
    sums = F.normalize(units, dim=1)  # of the members' unit vectors
    sizes = sums.new_ones(len(sums))
    similarity = sums.new_zeros(len(sums))  # to the nearest other cluster
    nearest = torch.zeros(len(sums), dtype=torch.long, device=device)
    alive = asking = torch.arange(len(sums), device=device)
    merges = [np.empty((0, 3))]
    while len(alive) > 1:
        means = sums[alive] / sizes[alive, None]
        for rows in asking.split(max(1, BLOCK // len(alive))):
            own = torch.searchsorted(alive, rows)
            products = means[own] @ means.T
            products.scatter_(1, own[:, None], -torch.inf)
            similarity[rows], place = products.max(1)
            nearest[rows] = alive[place]
        # a cluster too far from all others stays so: it is done
        alive = alive[similarity[alive] >= 1 - threshold]
        mutual = nearest[nearest[alive]] == alive
        first = alive[mutual & (alive < nearest[alive])]
        if len(alive) and not len(first):  # rounding hid it from one side
            first = alive[similarity[alive].argmax()][None]
        second = nearest[first]
        heights = 1 - similarity[first]
        merges.append(torch.stack([first, second, heights], 1).cpu().numpy())
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        touched = torch.zeros(len(sums), dtype=torch.bool, device=device)
        touched[second] = True
        alive = alive[~touched[alive]]
        touched[first] = True
        asking = alive[touched[alive] | touched[nearest[alive]]]
    merges = np.concatenate(merges)
    return merges[np.argsort(merges[:, 2], kind="stable")]


def cut(merges: np.ndarray, points: int, clusters: int) -> np.ndarray:
    """Labels after the nearest merges, as many as leave some clusters.

    Arguments
    ---------
    merges : numpy.ndarray
        Of `average_linkage`.
    points : int
        N, rows that were merged.
    clusters : int
        Wanted, `points - len(merges)` to `points`.

    Returns
    -------
    numpy.ndarray
        (N,) integers below `clusters`.

    Example
    -------
    >>> cut(np.array([[0, 2, 0.1], [0, 1, 0.7]]), points=3, clusters=2)
    array([0, 1, 0], dtype=int32)
    """
    first, second = merges[: points - clusters, :2].astype(int).T
    edges = coo_array((np.ones(len(first)), (first, second)), (points, points))
    return connected_components(edges, directed=False)[1]
