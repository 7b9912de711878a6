"""Verification at full size, beside NumPy's sort, a matrix product, SpeechBrain.

python benchmarks/verification.py [--quick]

EER and minDCF of 5 million scores, cosine scoring of 580,000 trials, adaptive
s-norm against 400,000 cohort embeddings (a tenth of 4700 utterances), and the 3.5 million trials of
CN-Celeb from their list to metrics, given the embeddings. SpeechBrain's EER
and minDCF run where they end in seconds; with both, the numbers are compared.
"""

import argparse
import resource
import tempfile
import tracemalloc
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from speechbrain.utils.metric_stats import EER, minDCF
from timing import side_by_side

from speechbrain_ssl.dataio.scores import write_scores
from speechbrain_ssl.dataio.trials import read_trials, resolve_trials
from speechbrain_ssl.evaluation.embed import Embeddings
from speechbrain_ssl.evaluation.metrics import verification_metrics
from speechbrain_ssl.evaluation.normalisation import cohort_statistics
from speechbrain_ssl.evaluation.scoring import cosine_scores

DRAW = np.random.default_rng(1)


def drawn(trials, share):
    """float32 scores and labels with a share of targets."""
    targets = DRAW.random(trials) < share
    scores = DRAW.standard_normal(trials, dtype=np.float32)
    scores[targets] += 2
    return scores, targets


def error_rates(quick):
    """Our metrics beside one argsort."""
    for trials, share in ((37_611, 0.5), (5_000_000, 0.01), (5_000_000, 0.5)):
        scores, targets = drawn(trials // (10 if quick else 1), share)
        times = side_by_side(
            {
                "argsort": partial(np.argsort, scores),
                "ours": partial(verification_metrics, scores, targets),
            },
            repeats=7,
        )
        tracemalloc.start()
        verification_metrics(scores, targets)
        memory = tracemalloc.get_traced_memory()[1] / scores.nbytes
        tracemalloc.stop()
        print(
            f"EER + minDCF, {len(scores)} scores, {100 * share:.0f} % targets: "
            f"{times['ours']:.2f} ms, {times['ours'] / times['argsort']:.2f} "
            f"times argsort, memory {memory:.1f} times the scores"
        )


def beside_speechbrain(quick):
    """The same numbers as SpeechBrain, and how long both take."""
    trials = 2000 if quick else 8000
    scores, targets = drawn(trials, 0.5)
    pair = torch.tensor(scores[targets]), torch.tensor(scores[~targets])
    began = perf_counter()
    (equal, _), (cost, _) = EER(*pair), minDCF(*pair)
    seconds = perf_counter() - began
    began = perf_counter()
    ours = verification_metrics(scores, targets)
    fast = perf_counter() - began
    print(
        f"SpeechBrain's EER and minDCF, {trials} scores: {seconds:.2f} s, "
        f"ours {1000 * fast:.2f} ms; they differ by "
        f"{abs(equal - ours['eer']):.1e} and "
        f"{abs(cost / 0.01 - ours['min_dcf']):.1e}"
    )


def table(utterances):
    """Embeddings of 192 dimensions."""
    shape = (utterances, 1, 192)
    vectors = DRAW.standard_normal(shape, dtype=np.float32)
    return Embeddings(vectors, np.ones((utterances, 1), np.float32))


def cosines(quick):
    """VoxCeleb1-E: pairs from a large table."""
    embeddings = table(14_500 if quick else 145_000)
    count = 58_000 if quick else 580_000
    rows = DRAW.integers(0, len(embeddings.vectors), (2, count))

    def score():
        cosine_scores(embeddings, embeddings, *rows, "loudest")

    milliseconds = side_by_side({"ours": score}, repeats=3)["ours"]
    print(f"cosine, {count} trials: {milliseconds / 1000:.2f} s")


def adaptive_norm(quick):
    """Statistics of the closest cohort members beside the bare product."""
    tests, members, top = 470, 400_000, 20_000  # a tenth of 4700: it is linear
    if quick:
        members, top = 40_000, 2000
    vectors = table(tests).vectors[:, 0]
    cohort = table(members).vectors[:, 0]
    one, two = torch.from_numpy(vectors), torch.from_numpy(cohort).T
    rows = 80
    product = torch.empty(rows, members)

    def bare():
        for block in one.split(rows):
            torch.mm(block, two, out=product[: len(block)])

    times = side_by_side(
        {"bare": bare, "ours": lambda: cohort_statistics(vectors, cohort, top)},
        repeats=1,
    )
    print(
        f"adaptive s-norm, {tests} utterances, {members} members, top {top}: "
        f"{times['ours'] / 1000:.1f} s, {times['ours'] / times['bare']:.2f} "
        "times the bare product"
    )


def cnceleb(quick):
    """196 models and 17,777 tests, all pairs: list to metrics."""
    models, tests = 196, 1777 if quick else 17_777
    enrol = [f"id{i:05d}-enroll" for i in range(models)]
    test = [
        f"test/id{i % models:05d}-singing-{i:05d}.wav" for i in range(tests)
    ]
    embeddings = table(models), table(tests)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.lst"
        with open(path, "w") as file:
            file.writelines(
                f"{one} {two} {j % models == i:d}\n"
                for i, one in enumerate(enrol)
                for j, two in enumerate(test)
            )
        before = peak()
        began = perf_counter()
        trials = read_trials(path)
        marks = [perf_counter()]
        rows = resolve_trials(trials, test, "tests", enrol)
        scores = cosine_scores(*embeddings, *rows, "loudest")
        marks.append(perf_counter())
        verification_metrics(scores, trials["target"].to_numpy())
        marks.append(perf_counter())
        write_scores(trials, scores, Path(folder) / "scores.txt")
        marks.append(perf_counter())
    parts = np.diff([began, *marks])
    print(
        f"CN-Celeb, {len(trials)} trials: list {parts[0]:.2f} s, scores "
        f"{parts[1]:.2f} s, metrics {parts[2]:.2f} s, together "
        f"{marks[2] - began:.2f} s; score file {parts[3]:.2f} s more; "
        f"peak of the process {peak():.0f} MB ({before:.0f} before)"
    )


def peak():
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Print all figures, the lean ones first: peak memory never falls."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of each")
    quick = parser.parse_args().quick
    for part in (cnceleb, error_rates, beside_speechbrain, cosines):
        part(quick)
    adaptive_norm(quick)


if __name__ == "__main__":
    main()
