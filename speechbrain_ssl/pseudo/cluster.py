"""Embeddings to clusters: PCA, k-means, merging, and how many there are."""

from typing import NamedTuple, Optional

import numpy as np
import torch
from torch.nn import functional as F

from speechbrain_ssl.checks import check_sizes, refuse
from speechbrain_ssl.pseudo.merge import average_linkage, cut

CANDIDATES = 12  # numbers of clusters that are compared, twice
SAMPLED = 20_000  # utterances that compare them
BATCH = 2**14  # rows of one mini-batch of scikit-learn's k-means
BLOCK = 2**26  # similarities in memory at once: 256 MB


class Tried(NamedTuple):
    """A number of clusters and how well it fits.

    Arguments
    ---------
    clusters : int
        The number.
    silhouette : float
        Mean over utterances, -1 to 1.
    distance : float
        Mean cosine distance of the last merge.
    """

    clusters: int
    silhouette: float
    distance: float


class Clusters(NamedTuple):
    """What `find_clusters` found.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,) integers.
    silhouettes : numpy.ndarray
        (N,) how much nearer its own cluster is than the next, -1 to 1.
    considered : list of Tried
        What was compared.
    cells : numpy.ndarray
        (N,) centroid of each row.
    merges : numpy.ndarray
        (merges, 3) of the centroids, see `average_linkage`.
    """

    labels: np.ndarray
    silhouettes: np.ndarray
    considered: list[Tried]
    cells: np.ndarray
    merges: np.ndarray

    def at(self, clusters: int) -> np.ndarray:
        """Labels (N,) for another number of clusters."""
        centroids = self.cells.max() + 1
        return cut(self.merges, centroids, clusters)[self.cells]


def find_clusters(
    embeddings: np.ndarray,
    variance: float = 0.99,
    utterances_per_centroid: float = 4,
    iterations: int = 10,
    threshold: Optional[float] = None,
    clusters: Optional[int] = None,
    seed: int = 0,
    device: str = "cpu",
) -> Clusters:
    """Cluster embeddings by k-means and average linkage of its centroids.

    Without `threshold` and `clusters` the number is where the mean silhouette
    has its finest local maximum.

    Source: the steps of Cho et al. 2022, arXiv:2208.05413, section 3.

    Differs: the number of clusters may be chosen without a threshold.

    Arguments
    ---------
    embeddings : numpy.ndarray
        (N, D), of any length.
    variance : float
        Share that PCA keeps, 0 to 1.
    utterances_per_centroid : float
        N over the number of k-means centroids, 1 or more; 1 leaves k-means
        out.
    iterations : int
        Of k-means.
    threshold : float, optional
        Mean cosine distance up to which centroids are merged, 0 to 1.
    clusters : int, optional
        How many are wanted.
    seed : int
        Of k-means.
    device : str
        Where products are computed, and faiss runs if it can.

    Returns
    -------
    Clusters

    Raises
    ------
    BadInputError
        If embeddings are not finite or zero, or there are fewer utterances
        than clusters.
    """
    norms = np.linalg.norm(embeddings, axis=1)
    faulty = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    refuse(
        "embeddings",
        [f"row {row} is zero or has NaN or infinite values" for row in faulty],
        "Look at the starting model and at these recordings.",
    )
    count = int(len(embeddings) / max(1, utterances_per_centroid))
    check_sizes(
        variance=(0 < variance <= 1, variance, "above 0, at most 1"),
        utterances_per_centroid=(
            utterances_per_centroid >= 1 and count >= 2,
            utterances_per_centroid,
            f"1 or more, and half of the {len(embeddings)} utterances at most",
        ),
        threshold=(
            threshold is None or 0 <= threshold <= 1,
            threshold,
            "0 to 1",
        ),
        clusters=(
            clusters is None or (2 <= clusters <= count and threshold is None),
            clusters,
            f"2 to {count}, the k-means centroids of {len(embeddings)} "
            "utterances, and not given with a threshold",
        ),
    )
    vectors = project(embeddings, variance)
    cells = (
        k_means(vectors, count, iterations, seed, device)
        if count < len(vectors)
        else np.arange(count)
    )
    _, cells = np.unique(cells, return_inverse=True)
    count = cells.max() + 1
    sums = _sums(torch.as_tensor(vectors), torch.as_tensor(cells))[0]
    farthest = 1 if clusters is None else 2
    farthest = farthest if threshold is None else threshold
    merges = average_linkage(sums, farthest, device)
    least = count - len(merges)
    problem = f"{threshold} merges all {count} centroids into one cluster"
    refuse(
        "threshold",
        [problem] if least < 2 and threshold is not None else [],
        "Lower it.",
    )
    if clusters is None and threshold is not None:
        clusters = least
    rows = np.random.default_rng(seed).permutation(len(vectors))[:SAMPLED]

    def try_out(number):
        labels = cut(merges, count, number)[cells]
        return Tried(
            int(number),
            float(silhouettes(vectors, labels, rows, device).mean()),
            float(merges[: count - number, 2].max(initial=0)),
        )

    if clusters is not None:
        considered = [try_out(min(clusters, count))]
        best = considered[0].clusters
    else:
        considered, best = _search(try_out, max(2, least), count)
    labels = cut(merges, count, best)[cells]
    every = np.arange(len(vectors))
    fitting = silhouettes(vectors, labels, every, device)
    return Clusters(labels, fitting, considered, cells, merges)


def _search(try_out, least, most):
    """Numbers on a grid of ratios, then between the neighbours of the finest
    local maximum: coarser ones are groups of speakers, such as men and women.
    """
    numbers = np.unique(np.geomspace(least, most, CANDIDATES).round())
    tried = [try_out(int(number)) for number in numbers]
    best = len(tried) - 1
    while best and tried[best - 1].silhouette > tried[best].silhouette:
        best -= 1
    low, high = (
        numbers[max(0, best - 1)],
        numbers[min(best + 1, len(tried) - 1)],
    )
    finer = np.unique(np.linspace(low, high, CANDIDATES).round())
    near = [try_out(int(n)) for n in np.setdiff1d(finer, numbers)]
    chosen = max([tried[best], *near], key=lambda one: one.silhouette)
    return sorted(tried + near), chosen.clusters


def project(embeddings: np.ndarray, variance: float) -> np.ndarray:
    """Unit vectors of the principal components of unit vectors.

    Arguments
    ---------
    embeddings : numpy.ndarray
        (N, D), of any length but zero.
    variance : float
        Share that is kept, 0 to 1; 1 keeps all.

    Returns
    -------
    numpy.ndarray
        (N, E) float32, unit length, E at most D.
    """
    from sklearn.decomposition import PCA

    units = _unit(embeddings)
    kept = PCA(variance if variance < 1 else None, svd_solver="covariance_eigh")
    return _unit(kept.fit_transform(units))


def k_means(
    vectors: np.ndarray,
    centroids: int,
    iterations: int,
    seed: int,
    device: str = "cpu",
) -> np.ndarray:
    """Nearest centroid of each vector, by faiss or else scikit-learn.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D) float32.
    centroids : int
        Fewer than N.
    iterations : int
        Of all vectors with faiss; scikit-learn's mini-batches may stop
        earlier.
    seed : int
        Of the first centroids.
    device : str
        faiss computes on the GPU where this is `cuda` and it was built so.

    Returns
    -------
    numpy.ndarray
        (N,) integers; a centroid may have no vector.
    """
    try:
        import faiss
    except ImportError:
        from sklearn.cluster import MiniBatchKMeans

        batches = MiniBatchKMeans(
            centroids,
            init="random",
            n_init=1,
            max_iter=iterations,
            batch_size=max(BATCH, 2 * centroids),
            random_state=seed,
        )
        return batches.fit_predict(vectors)
    machine = faiss.Kmeans(
        vectors.shape[1],
        centroids,
        niter=iterations,
        seed=seed,
        spherical=True,
        gpu="cuda" in device and hasattr(faiss, "StandardGpuResources"),
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    machine.train(vectors)
    return machine.assign(vectors)[1].ravel()


def silhouettes(
    vectors: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """Silhouettes of some rows on the cosine distance, without all pairs.

    (b - a) / max(a, b), where a is the mean cosine distance to the others of
    the own cluster and b the least mean distance to another cluster. The mean
    over a cluster is one product with its mean vector. 0 for a cluster of
    one.

    Source: Rousseeuw, "Silhouettes", 1987.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D) unit vectors.
    labels : numpy.ndarray
        (N,) integers from 0 on, two or more of them.
    rows : numpy.ndarray
        (R,) which are wanted.
    device : str
        Where the products are computed.

    Returns
    -------
    numpy.ndarray
        (R,) -1 to 1.

    Example
    -------
    >>> vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float)
    >>> silhouettes(vectors, np.array([0, 0, 1, 1]), np.arange(4)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    points = torch.as_tensor(vectors, dtype=torch.float, device=device)
    owners = torch.as_tensor(labels, dtype=torch.long, device=device)
    sums, sizes = _sums(points, owners)
    means = sums / sizes[:, None]
    results = []
    for part in torch.as_tensor(rows, device=device).split(
        max(1, BLOCK // len(sizes))
    ):
        own = owners[part, None]
        distances = 1 - points[part] @ means.T
        size = sizes[own[:, 0]]
        others = size / (size - 1).clamp(min=1)  # the row itself is at 0
        within = distances.gather(1, own)[:, 0] * others
        apart = distances.scatter(1, own, torch.inf).amin(1)
        value = (apart - within) / torch.maximum(apart, within).clamp(min=1e-9)
        results.append(torch.where(size > 1, value, 0.0))
    return torch.cat(results).cpu().numpy()


def _sums(points, owners):
    """Sum and number of the points of each cluster."""
    sizes = torch.bincount(owners)
    sums = points.new_zeros(len(sizes), points.shape[1])
    return sums.index_add_(0, owners, points), sizes


def _unit(vectors):
    return F.normalize(torch.as_tensor(vectors).float(), dim=1).numpy()
