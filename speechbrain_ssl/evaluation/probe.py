"""Linear probes of frozen embeddings; they need the extra `probe`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechbrain_ssl.checks import refuse

PARTITIONS = {"train", "valid", "test"}
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # inverse of L2


class Split(NamedTuple):
    """One fold that is tested, and the rows that may be learned from.

    Arguments
    ---------
    name : str
        The fold, e.g. "0" or "test".
    train, test : numpy.ndarray
        Row numbers, without a common speaker.
    inner : list of (numpy.ndarray, numpy.ndarray)
        Row numbers to fit and to score on when something has to be chosen;
        none of them is in `test`.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    inner: list[tuple[np.ndarray, np.ndarray]]


def speaker_splits(rows: pd.DataFrame, label: str) -> list[Split]:
    """Every fold left out in turn, or the official partitions.

    With the folds `train`, `valid` and `test` there is one split, and
    choices are made on `valid`. Otherwise each fold is tested once and
    choices are made by leaving out each of the others.

    Arguments
    ---------
    rows : pandas.DataFrame
        Columns fold, spk_id and the label.
    label : str
        The column that is predicted.

    Returns
    -------
    list of Split

    Raises
    ------
    BadInputError
        If a speaker is in two folds, there are fewer than three folds, or a
        class is not both trained and tested.

    Example
    -------
    >>> table = pd.DataFrame(
    ...     {"fold": list("aabbcc"), "spk_id": list("aabbcc"), "x": [0, 1] * 3}
    ... )
    >>> split = speaker_splits(table, "x")[0]
    >>> split.name, split.train.tolist(), len(split.inner)
    ('a', [2, 3, 4, 5], 2)
    """
    folds, labels = rows["fold"].to_numpy(), rows[label].to_numpy()
    names = sorted(set(folds))
    problems = [f"{sum(folds == '')} rows have none"] if "" in names else []
    if {"train", "test"} < set(names) != PARTITIONS:
        problems.append(
            f"they are {', '.join(names)}; official partitions are "
            f"{', '.join(sorted(PARTITIONS))}"
        )
    refuse("folds", problems, "Correct the column fold.")
    where = {name: np.flatnonzero(folds == name) for name in names}
    if PARTITIONS.issuperset(names):
        problems = [f"no row is in '{n}'" for n in PARTITIONS - set(names)]
        refuse("folds", sorted(problems), "Give all three, or other names.")
        inner = [(where["train"], where["valid"])]
        splits = [Split("test", where["train"], where["test"], inner)]
    else:
        splits = [_left_out(name, where) for name in names]
    homes = rows.groupby("spk_id")["fold"].unique()
    problems = [
        f"speaker '{speaker}' is in the folds {', '.join(homes[speaker])}"
        for speaker in homes.index[homes.str.len() > 1]
    ]
    if len(names) < 3:
        problems.append(f"there are {len(names)} folds; 3 or more are needed")
    problems += [
        f"fold '{split.name}' tests the class '{lost}', which no training "
        "row has"
        for split in splits
        for lost in sorted(set(labels[split.test]) - set(labels[split.train]))
    ]
    tested = {kind for split in splits for kind in labels[split.test]}
    problems += [
        f"no tested row has the class '{kind}'"
        for kind in sorted(set(labels) - tested)
    ]
    refuse("folds", problems, "Correct the column 'fold', or give `classes`.")
    return splits


def _left_out(name, where):
    def all_but(*left):
        kept = [rows for fold, rows in where.items() if fold not in left]
        return np.concatenate([np.empty(0, dtype=int), *kept])

    inner = [
        (all_but(name, held), where[held]) for held in where if held != name
    ]
    return Split(name, all_but(name), where[name], inner)


def linear_predictions(
    vectors: np.ndarray, labels: np.ndarray, splits: Sequence[Split]
) -> np.ndarray:
    """Classes that a linear probe gives to the rows that are tested.

    Multinomial logistic regression on vectors standardised with the mean and
    deviation of the rows it learns from. Its L2 strength is the one of
    `STRENGTHS` with the highest mean accuracy over the split's inner pairs,
    each standardised by itself; the strongest of equals. Inner pairs without a
    class to fit, as with few labels, cannot choose; without any pair it is 1.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D).
    labels : numpy.ndarray
        (N,).
    splits : sequence of Split
        What to learn from and to predict.

    Returns
    -------
    numpy.ndarray
        (N,) classes; None for rows that no split tests.
    """
    vectors = vectors.astype(np.float64)  # in float32 the search stops early
    predictions = np.full(len(labels), None, dtype=object)
    for split in splits:
        kinds = np.unique(labels[split.train])
        if len(kinds) == 1:
            predictions[split.test] = kinds[0]
            continue
        pairs = [
            (fit, score)
            for fit, score in split.inner
            if len(score) and len(np.unique(labels[fit])) == len(kinds)
        ]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.set_params(logisticregression__max_iter=5000)
        if pairs:
            search = GridSearchCV(
                model,
                {"logisticregression__C": STRENGTHS},
                scoring="accuracy",
                cv=pairs,
                refit=False,
            )
            model.set_params(**search.fit(vectors, labels).best_params_)
        model.fit(vectors[split.train], labels[split.train])
        predictions[split.test] = model.predict(vectors[split.test])
    return predictions


def majority_predictions(
    labels: np.ndarray, splits: Sequence[Split]
) -> np.ndarray:
    """The most frequent class of the training rows, for every tested row.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,).
    splits : sequence of Split
        What to learn from and to predict.

    Returns
    -------
    numpy.ndarray
        (N,) classes; None for rows that no split tests.

    Example
    -------
    >>> split = Split("a", np.arange(3), np.array([3]), [])
    >>> int(majority_predictions(np.array([0, 1, 1, 0]), [split])[3])
    1
    """
    predictions = np.full(len(labels), None, dtype=object)
    for split in splits:
        names, counts = np.unique(labels[split.train], return_counts=True)
        predictions[split.test] = names[counts.argmax()]
    return predictions


def classification_metrics(
    labels: np.ndarray, predictions: np.ndarray
) -> dict[str, Any]:
    """Figures of all predictions pooled, as fractions.

    Arguments
    ---------
    labels : numpy.ndarray
        (N,), every class at least once.
    predictions : numpy.ndarray
        (N,), of the same classes.

    Returns
    -------
    dict
        micro_f1 (the accuracy), macro_f1, unweighted_recall (mean over the
        classes), utterances and confusion, the counts by class (row) and
        prediction (column), classes in alphabetical order.

    Example
    -------
    >>> figures = classification_metrics(list("aaab"), list("aabb"))
    >>> figures["micro_f1"], round(figures["unweighted_recall"], 3)
    (0.75, 0.833)
    """
    scores = {"zero_division": 0.0}
    micro_f1 = f1_score(labels, predictions, average="micro", **scores)
    assert np.isclose(micro_f1, accuracy_score(labels, predictions))
    return {
        "micro_f1": float(micro_f1),
        "macro_f1": float(
            f1_score(labels, predictions, average="macro", **scores)
        ),
        "unweighted_recall": float(
            recall_score(labels, predictions, average="macro", **scores)
        ),
        "utterances": len(labels),
        "confusion": confusion_matrix(labels, predictions).tolist(),
    }


def label_curve(
    vectors: np.ndarray,
    labels: np.ndarray,
    splits: Sequence[Split],
    percents: Sequence[float],
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Figures of the linear probe when few training rows have labels.

    Each split keeps a share of the rows it may learn or choose from, the same
    of each class but at least one; the rest is not looked at.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, D).
    labels : numpy.ndarray
        (N,).
    splits : sequence of Split
        What to learn from and to predict.
    percents : sequence of float
        Shares of the labels, above 0 to 100.
    draws : int
        How often each share is drawn; 100 % only once.
    seed : int
        Of the draws.

    Returns
    -------
    list of dict
        For each share: percent, labels (mean count a split), micro_f1 and
        unweighted_recall (a list with a figure a draw each).
    """
    tested = np.sort(np.concatenate([split.test for split in splits]))
    curve = []
    for percent in percents:
        line = {"percent": percent, "labels": 0.0}
        line.update(micro_f1=[], unweighted_recall=[])
        times = 1 if percent == 100 else draws
        for draw in range(times):
            kept = [
                _with_share(split, labels, percent, (seed, draw, number))
                for number, split in enumerate(splits)
            ]
            count = np.mean([len(_pool(split)) for split in kept])
            line["labels"] += float(count) / times
            given = linear_predictions(vectors, labels, kept)
            figures = classification_metrics(labels[tested], given[tested])
            for name in ("micro_f1", "unweighted_recall"):
                line[name].append(figures[name])
        curve.append(line)
    return curve


def _pool(split):
    """Rows whose labels a split reads before it is tested."""
    held = [rows for pair in split.inner for rows in pair]
    return np.unique(np.concatenate([split.train, *held]))


def _with_share(split, labels, percent, key):
    generator, kept = np.random.default_rng(key), []
    for part in (split.train, np.setdiff1d(_pool(split), split.train)):
        for name in np.unique(labels[part]):
            rows = generator.permutation(part[labels[part] == name])
            kept.append(rows[: max(1, round(len(rows) * percent / 100))])
    kept = np.concatenate(kept)
    return split._replace(
        train=np.intersect1d(split.train, kept),
        inner=[
            (np.intersect1d(fit, kept), np.intersect1d(score, kept))
            for fit, score in split.inner
        ],
    )
