"""Merging, silhouettes and the choice of clusters, beside slow ones."""

import sys

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.pseudo import cluster, merge
from speechbrain_ssl.pseudo.cluster import find_clusters, k_means, silhouettes
from speechbrain_ssl.pseudo.labels import (
    agreement,
    describe,
    tracking,
    trusted,
)
from speechbrain_ssl.pseudo.merge import average_linkage, cut


def voices(speakers, each, spread=0.5, dim=16, seed=0):
    draw = np.random.default_rng(seed)
    owners = np.repeat(np.arange(speakers), each)
    centres = draw.normal(size=(speakers, dim))
    noise = draw.normal(size=(len(owners), dim))
    return (centres[owners] + spread * noise).astype(np.float32), owners


@pytest.mark.parametrize("block", [1, 1000, 2**26])
def test_merges_are_those_of_scipy(block, monkeypatch):
    monkeypatch.setattr(merge, "BLOCK", block)
    vectors = np.random.default_rng(0).normal(size=(120, 6))
    vectors *= np.random.default_rng(1).uniform(0.1, 9, (120, 1))
    tree = linkage(vectors, "average", metric="cosine")
    ours = average_linkage(vectors, threshold=2.0)
    np.testing.assert_allclose(ours[:, 2], tree[:, 2], atol=1e-6)
    for clusters in (1, 2, 7, 50, 119, 120):
        theirs = fcluster(tree, clusters, "maxclust")
        labels = cut(ours, 120, clusters)
        assert labels.max() + 1 == clusters
        assert adjusted_rand_score(labels, theirs) == 1
    for threshold in (0.0, 0.3, 0.7):
        theirs = fcluster(tree, threshold, "distance")
        ours = average_linkage(vectors, threshold)
        labels = cut(ours, 120, 120 - len(ours))
        assert adjusted_rand_score(labels, theirs) == 1


def test_equal_points_merge_first_and_all():
    vectors = np.repeat(np.eye(3), 5, axis=0)
    merges = average_linkage(vectors, 0.5)
    assert len(merges) == 12
    np.testing.assert_allclose(merges[:, 2], 0, atol=1e-6)
    labels = cut(merges, 15, 3)
    assert [len(set(labels[i : i + 5])) for i in (0, 5, 10)] == [1, 1, 1]


@pytest.mark.parametrize("block", [1, 2**26])
def test_silhouettes_are_those_of_scikit_learn(block, monkeypatch):
    monkeypatch.setattr(cluster, "BLOCK", block)
    vectors, owners = voices(6, 7, spread=1.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    owners[0] = 6  # a cluster of one
    expected = silhouette_samples(vectors, owners, metric="cosine")
    found = silhouettes(vectors, owners, np.arange(42))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    rows = np.array([41, 3])
    found = silhouettes(vectors, owners, rows)
    np.testing.assert_allclose(found, expected[rows], atol=1e-5)


@pytest.mark.parametrize("per_centroid", [1, 4])
@pytest.mark.parametrize("library", ["faiss", "scikit-learn"])
def test_speakers_are_found_and_counted(library, per_centroid, monkeypatch):
    if library == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)
    vectors, owners = voices(20, 30)
    found = find_clusters(vectors, utterances_per_centroid=per_centroid)
    assert agreement(found.labels, owners)["nmi"] > 0.95
    assert abs(found.labels.max() + 1 - 20) <= 2
    numbers = [tried.clusters for tried in found.considered]
    assert numbers == sorted(set(numbers)) and len(numbers) > 5
    for number in (5, 20):
        assert found.at(number).max() + 1 == number
    for number in (2, 11):
        asked = find_clusters(
            vectors, utterances_per_centroid=per_centroid, clusters=number
        )
        assert asked.labels.max() + 1 == number
        assert len(asked.considered) == 1
    near = find_clusters(
        vectors, utterances_per_centroid=per_centroid, threshold=0.05
    )
    assert near.labels.max() + 1 > 20


def test_men_and_women_are_not_taken_for_two_speakers():
    """The coarse structure has the higher silhouette, the fine one counts."""
    vectors, owners = voices(24, 10, spread=0.7, dim=24)
    vectors[: 12 * 10, 0] += 8
    vectors[12 * 10 :, 0] -= 8
    found = find_clusters(vectors, variance=1.0, utterances_per_centroid=1)
    value = {tried.clusters: tried.silhouette for tried in found.considered}
    assert value[2] > max(v for number, v in value.items() if number > 10)
    assert abs(found.labels.max() + 1 - 24) <= 3
    assert agreement(found.labels, owners)["nmi"] > 0.95


def test_k_means_without_faiss_gives_nearest_centroids(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    vectors, owners = voices(5, 40, spread=0.05)
    labels = k_means(vectors, 30, 10, seed=1)
    assert labels.shape == (200,) and len(set(labels)) <= 30
    for label in set(labels):
        assert len(set(owners[labels == label])) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clusters": 60}, "clusters is 60; it must be 2 to 50, the k-means"),
        ({"clusters": 9, "threshold": 0.5}, "not given with a threshold"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be 0 to 1"),
        ({"utterances_per_centroid": 200}, "half of the 100 utterances"),
        ({"variance": 0}, "variance is 0"),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message):
    vectors, _ = voices(10, 10)
    values = {"utterances_per_centroid": 2, **change}
    with pytest.raises(BadInputError, match=message):
        find_clusters(vectors, **values)


def test_a_threshold_that_leaves_one_cluster_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "project", lambda vectors, _: vectors)
    vectors = np.random.default_rng(0).uniform(0.5, 1, (40, 8))
    with pytest.raises(BadInputError, match="0.9 merges all 10 centroids"):
        find_clusters(vectors.astype(np.float32), threshold=0.9)


def test_embeddings_that_are_not_finite_are_named():
    vectors, _ = voices(10, 10)
    vectors[3, 2], vectors[7] = np.nan, 0
    with pytest.raises(
        BadInputError, match="2 problems(.|\n)*row 3(.|\n)*row 7"
    ):
        find_clusters(vectors)


def test_trusted_leaves_out_the_uncertain_then_the_tiny():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    values = np.array([0.9, 0.8, -0.1, 0.7, -0.2, 0.3, 0.2, 0.1])
    assert trusted(labels, values).tolist() == [0, 1, 5, 6, 7]
    assert trusted(labels, values, -1, 3).tolist() == [0, 1, 2, 5, 6, 7]
    assert trusted(labels, values, 0.2, 2).tolist() == [0, 1, 5, 6]


@pytest.mark.parametrize(
    "least, smallest, message",
    [
        (0.95, 1, "least_silhouette 0.95 keeps 0 of 4 .* highest is 0.900"),
        (0.0, 3, "smallest_cluster 3 then keeps 0 of 2 .* largest has 2"),
    ],
)
def test_the_threshold_that_filters_all_away_is_named(least, smallest, message):
    labels, values = np.array([0, 0, 1, 1]), np.array([0.9, 0.5, 0.1, 0.2])
    with pytest.raises(BadInputError, match=message):
        trusted(labels, values, least, smallest)


def test_figures_of_a_round():
    labels = np.array([0, 0, 0, 1, 1, 2])
    speakers = np.array(list("aabccc"))
    kept = np.arange(5)
    figures = describe(labels, kept, labels[::-1].copy(), speakers)
    assert figures["found"] == 3 and figures["clusters"] == 2
    assert figures["sizes"] == [2, 2.5, 3]
    assert figures["kept"] == pytest.approx(5 / 6)
    assert figures["speakers"]["purity"] == pytest.approx(4 / 5)
    # H(a, b, c) = 1.0549, H(0, 1) = 0.6730 and both at once 1.0549 nats
    nmi = 0.6730 / ((1.0549 + 0.6730) / 2)
    assert figures["speakers"]["nmi"] == pytest.approx(nmi, abs=1e-3)
    assert 0 < figures["stability"] < 1
    assert "speakers" not in describe(labels, kept)


def test_tracking_is_a_rank_correlation():
    values = [(0.1, 0.5), (0.2, 0.9), (0.3, 0.7)]
    tried = [{"silhouette": s, "ari": a} for s, a in values]
    assert tracking(tried) == pytest.approx(0.5)
    assert tracking(tried[:2]) is None
