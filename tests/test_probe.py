"""Linear probes: splits, figures, and nothing learned from tested rows."""

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation import probe
from speechbrain_ssl.evaluation.probe import (
    classification_metrics,
    label_curve,
    linear_predictions,
    majority_predictions,
    speaker_splits,
)
from speechbrain_ssl.prepare.labelled import deal_folds


def corpus(folds="aaaabbbbccccdddd", classes=2, dim=6, noise=1.0):
    """Rows of two speakers a fold, their classes, and noisy vectors."""
    draw = np.random.default_rng(3)
    labels = np.array([f"class{n % classes}" for n in range(len(folds))])
    centres = draw.normal(size=(classes, dim))
    vectors = centres[np.arange(len(folds)) % classes]
    vectors = vectors + noise * draw.normal(size=vectors.shape)
    speakers = [f"{fold}{n % 2}" for n, fold in enumerate(folds)]
    rows = pd.DataFrame(
        {"fold": list(folds), "spk_id": speakers, "emotion": labels}
    )
    return rows, labels, vectors.astype(np.float32)


def test_each_fold_is_tested_once_and_never_learned_from():
    rows, _, _ = corpus()
    splits = speaker_splits(rows, "emotion")
    assert [split.name for split in splits] == list("abcd")
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested) == list(range(len(rows)))
    for split in splits:
        used = [split.train, *[part for pair in split.inner for part in pair]]
        assert not set(np.concatenate(used)) & set(split.test)
        assert sorted([*split.train, *split.test]) == list(range(len(rows)))
        assert len(split.inner) == 3
        for fit, score in split.inner:
            speakers = [set(rows["spk_id"].iloc[p]) for p in (fit, score)]
            assert not speakers[0] & speakers[1]
            assert sorted([*fit, *score]) == sorted(split.train)


def test_official_partitions_choose_on_valid_and_learn_from_train():
    rows, _, _ = corpus()
    names = {"a": "train", "b": "train", "c": "valid", "d": "test"}
    rows["fold"] = rows["fold"].map(names)
    (split,) = speaker_splits(rows, "emotion")
    assert split.train.tolist() == list(range(8))
    assert split.test.tolist() == list(range(12, 16))
    ((fit, score),) = split.inner
    assert fit.tolist() == list(range(8))
    assert score.tolist() == list(range(8, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spk_id": "x"}, "speaker 'x' is in the folds a, b, c, d"),
        ({"fold": list("aaaabbbb") * 2}, "there are 2 folds; 3 or more"),
        ({"fold": ["train"] * 9 + ["test"] * 7}, "no row is in 'valid'"),
        ({"fold": [""] * 4 + list("aaaabbbbcccc")}, "4 rows have none"),
        (
            {"fold": ["train"] * 8 + ["dev"] * 4 + ["test"] * 4},
            "they are dev, test, train; official partitions",
        ),
        (
            {"emotion": ["z"] * 4 + ["y", "x"] * 6},
            "fold 'a' tests the class 'z', which no training row has",
        ),
        (
            {
                "fold": ["train"] * 8 + ["valid"] * 4 + ["test"] * 4,
                "emotion": ["x", "y", "z", "y"] * 3 + ["x", "y"] * 2,
            },
            "no tested row has the class 'z'",
        ),
    ],
)
def test_folds_that_cannot_be_tested_are_refused(change, message):
    rows, _, _ = corpus()
    with pytest.raises(BadInputError, match=message):
        speaker_splits(rows.assign(**change), "emotion")


def slow_logistic(train, labels, test, strength):
    """Multinomial logistic regression by damped Newton steps; its logits."""
    classes = np.unique(labels)
    mean, spread = train.mean(0), train.std(0)
    x = np.c_[(train - mean) / spread, np.ones(len(train))]
    hot = (labels[:, None] == classes).astype(float)
    size, count = x.shape[1], len(classes)
    penalty = np.diag(np.tile([1.0] * (size - 1) + [0.0], count)) / strength

    def value(weights):
        logits = x @ weights.reshape(count, size).T
        rest = np.log(np.exp(logits).sum(1)) - (hot * logits).sum(1)
        return rest.sum() + weights @ penalty @ weights / 2

    weights = np.zeros(size * count)
    for _ in range(60):
        p = np.exp(x @ weights.reshape(count, size).T)
        p /= p.sum(1, keepdims=True)
        gradient = ((p - hot).T @ x).ravel() + penalty @ weights
        hessian = penalty.copy()
        for row, q in zip(x, p):
            hessian += np.kron(np.diag(q) - np.outer(q, q), np.outer(row, row))
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        while value(weights - step) > value(weights) + 1e-9:
            step = step / 2
        weights = weights - step
    z = np.c_[(test - mean) / spread, np.ones(len(test))]
    return classes, z @ weights.reshape(count, size).T


def test_predictions_equal_a_slow_probe_that_chooses_its_strength(
    monkeypatch,
):
    strengths = (0.01, 0.3, 10.0)
    monkeypatch.setattr(probe, "STRENGTHS", strengths)
    rows, labels, vectors = corpus("aaaaaabbbbbbcccccc" * 2, 3, 6, noise=2.0)
    vectors = vectors * [1, 10, 0.1, 5, 3, 1] + 3
    splits = speaker_splits(rows, "emotion")
    given = linear_predictions(vectors, labels, splits)

    def slow(fit, score, strength):
        classes, logits = slow_logistic(
            vectors[fit], labels[fit], vectors[score], strength
        )
        return classes[logits.argmax(1)], np.sort(logits)[:, -2:]

    chosen = []
    for split in splits:
        means = [
            np.mean([np.mean(slow(f, s, c)[0] == labels[s]) for f, s in pairs])
            for c in strengths
            for pairs in [split.inner]
        ]
        chosen.append(strengths[int(np.argmax(means))])
        expected, best = slow(split.train, split.test, chosen[-1])
        sure = best[:, 1] - best[:, 0] > 0.01  # lbfgs stops at 1e-4
        assert sure.mean() > 0.8
        assert (given[split.test][sure] == expected[sure]).all()
    assert len(set(chosen)) > 1  # else the choice would not be tested


def test_labels_of_tested_rows_change_no_prediction():
    rows, labels, vectors = corpus(noise=2.0)
    splits = speaker_splits(rows, "emotion")[:1]
    given = linear_predictions(vectors, labels, splits)
    changed, moved = labels.copy(), vectors.copy()
    changed[splits[0].test] = "class0"
    moved[splits[0].test[1:]] = 1e6  # would upset a common standardisation
    again = linear_predictions(moved, changed, splits)
    assert again[splits[0].test[0]] == given[splits[0].test[0]]
    assert all(given[row] is None for row in splits[0].train)


def test_majority_is_that_of_the_training_rows():
    labels = np.array(list("xxxxyyzzz"))
    rows = pd.DataFrame(
        {"fold": list("aaabbbccc"), "spk_id": list("aaabbbccc")}
    )
    rows["emotion"] = list("xyxyxyxyx")
    splits = speaker_splits(rows, "emotion")
    given = majority_predictions(labels, splits)
    assert given.tolist() == ["z"] * 3 + ["x"] * 3 + ["x"] * 3


def test_figures_equal_counts_by_hand():
    labels = np.array(list("aaaabbbc"))
    given = np.array(list("aabbbbac"))
    figures = classification_metrics(labels, given)
    assert figures["confusion"] == [[2, 2, 0], [1, 2, 0], [0, 0, 1]]
    assert figures["utterances"] == 8
    hits = f1 = recall = 0.0
    for name in "abc":
        hit = sum((x == y == name) for x, y in zip(labels, given))
        right, said = (labels == name).sum(), (given == name).sum()
        hits, recall = hits + hit, recall + hit / right / 3
        f1 += 2 * hit / (right + said) / 3
    assert figures["micro_f1"] == pytest.approx(hits / 8)
    assert figures["macro_f1"] == pytest.approx(f1)
    assert figures["unweighted_recall"] == pytest.approx(recall)


def test_a_class_that_is_never_predicted_counts_as_zero():
    figures = classification_metrics(list("aab"), list("aaa"))
    assert figures["unweighted_recall"] == pytest.approx(0.5)
    assert figures["macro_f1"] == pytest.approx(0.4)


def test_label_curve_ends_at_the_probe_and_is_drawn_by_seed(monkeypatch):
    monkeypatch.setattr(probe, "STRENGTHS", (0.1, 1.0))
    rows, labels, vectors = corpus("aaaaaabbbbbbcccccc" * 4, 3, 4, 1.0)
    splits = speaker_splits(rows, "emotion")
    arguments = vectors, labels, splits, [1, 25, 100]
    curve = label_curve(*arguments, draws=2, seed=1)
    assert [line["percent"] for line in curve] == [1, 25, 100]
    assert [line["labels"] for line in curve] == [3, 12, 48]
    assert [len(line["micro_f1"]) for line in curve] == [2, 2, 1]
    whole = linear_predictions(vectors, labels, splits)
    figures = classification_metrics(labels, whole)
    for name in ("micro_f1", "unweighted_recall"):
        assert curve[2][name] == [figures[name]]
    assert label_curve(*arguments, draws=2, seed=1) == curve
    assert label_curve(*arguments, draws=2, seed=2) != curve
    assert curve[0]["micro_f1"] != curve[1]["micro_f1"]


def test_label_curve_reads_no_label_that_was_not_drawn(monkeypatch):
    rows, labels, vectors = corpus("aaaaaabbbbbbccccccdddddd" * 4, 3, 4, 1.0)
    splits = speaker_splits(rows, "emotion")
    seen = []

    def look(vectors, labels, kept):
        seen.extend(kept)
        return majority_predictions(labels, kept)

    monkeypatch.setattr(probe, "linear_predictions", look)
    label_curve(vectors, labels, splits, [25], draws=1, seed=1)
    for whole, kept in zip(splits, seen):
        assert kept.test.tolist() == whole.test.tolist()
        assert set(kept.train) < set(whole.train)
        for fit, score in kept.inner:
            assert set(fit) | set(score) == set(kept.train)
            assert not set(fit) & set(score)


def test_few_labels_without_a_choice_still_give_a_probe():
    rows, labels, vectors = corpus("aabbcc" * 8, noise=0.1)
    splits = speaker_splits(rows, "emotion")
    one_each = [s._replace(train=s.train[:2], inner=[]) for s in splits]
    given = linear_predictions(vectors, labels, one_each)
    assert np.mean(given == labels) > 0.9


def test_dealt_folds_hold_each_class_about_equally():
    draw = np.random.default_rng(1)
    speakers = pd.Series(np.repeat(np.arange(20), 6))
    labels = pd.Series(draw.choice(list("xyz"), 120))
    folds = pd.Series(deal_folds(labels, speakers, seed=1))
    assert sorted(folds.unique()) == list("01234")
    assert (folds.groupby(speakers).nunique() == 1).all()
    counts = pd.crosstab(folds, labels)
    assert (counts - counts.mean()).abs().to_numpy().max() <= 4
