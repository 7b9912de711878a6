"""Clustering of synthetic embeddings: time, memory and how right it is.

python benchmarks/clustering.py [--utterances 200000] [--speakers 2000]

Speakers are drawn on the sphere, of unequal sizes; a recording adds noise of
`--spread` times a speaker's length. The number of clusters is chosen by the
silhouette, as in training, and compared with the speakers. Prints seconds,
the peak of the process's memory, NMI and the numbers that were compared.
"""

import argparse
import importlib.util
import resource
import time

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score

from speechbrain_ssl.pseudo.cluster import find_clusters


def synthetic(utterances, speakers, dim, spread, seed):
    """Embeddings and the speaker of each."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(speakers, dim)).astype(np.float32)
    shares = draw.dirichlet(np.full(speakers, 4.0))
    owners = draw.choice(speakers, utterances, p=shares)
    noise = draw.normal(size=(utterances, dim)).astype(np.float32)
    return centres[owners] + spread * noise, owners


def main():
    """Print one line for the whole and one for each number compared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--utterances", type=int, default=200_000)
    parser.add_argument("--speakers", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--utterances_per_centroid", type=float, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    embeddings, owners = synthetic(
        arguments.utterances,
        arguments.speakers,
        arguments.dim,
        arguments.spread,
        seed=1,
    )
    library = "faiss" if importlib.util.find_spec("faiss") else "scikit-learn"
    began = time.perf_counter(), time.process_time()
    found = find_clusters(
        embeddings, utterances_per_centroid=arguments.utterances_per_centroid
    )
    seconds = time.perf_counter() - began[0]
    busy = time.process_time() - began[1]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{library}: {seconds:.0f} s, {busy:.0f} s of all cores, {most:.1f} GB, "
        f"{found.labels.max() + 1} clusters of {len(np.unique(owners))} "
        f"speakers, NMI "
        f"{normalized_mutual_info_score(owners, found.labels):.4f}"
    )
    for tried in found.considered:
        print(
            f"{tried.clusters:7d} clusters: silhouette {tried.silhouette:.3f}"
        )


if __name__ == "__main__":
    main()
