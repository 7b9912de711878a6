"""Score normalisation and PLDA, beside loops and SpeechBrain."""

import numpy as np
import pytest
from speechbrain.processing import PLDA_LDA

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation import normalisation
from speechbrain_ssl.evaluation.embed import Embeddings
from speechbrain_ssl.evaluation.enrolment import Setting, TwoPart, enrol_models
from speechbrain_ssl.evaluation.normalisation import speaker_means
from speechbrain_ssl.evaluation.plda import PLDA
from speechbrain_ssl.evaluation.scoring import Cosine, Scorer, pair_scores

DRAW = np.random.default_rng(11)


def table(utterances, slots=1, width=6):
    shape = (utterances, slots, width)
    vectors = DRAW.normal(size=shape).astype(np.float32)
    return Embeddings(vectors, DRAW.random(shape[:2]))


def cosine(one, two):
    return one @ two / np.linalg.norm(one) / np.linalg.norm(two)


def slow_norm(one, two, cohort, norm, top):
    def z(score, vector):
        others = sorted((cosine(vector, c) for c in cohort), reverse=True)
        others = np.array(others[: top if norm == "as" else None])
        return (score - others.mean()) / others.std(ddof=1)

    score = cosine(one, two)
    if norm in "zt":
        return z(score, one if norm == "z" else two)
    return (z(score, one) + z(score, two)) / 2


@pytest.mark.parametrize("trials", [4, 60])  # gathered; one product
def test_pair_scores_are_inner_products(trials):
    models, slots = table(7).vectors[:, 0], table(5, slots=2).vectors
    enrol, test = DRAW.integers(0, 7, trials), DRAW.integers(0, 5, trials)
    given = pair_scores(models, slots, enrol, test)
    for n in range(trials):
        expected = slots[test[n]] @ models[enrol[n]]
        np.testing.assert_allclose(given[n], expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["z", "t", "s", "as"])
def test_normalised_scores_equal_the_slow_loop(norm, monkeypatch):
    monkeypatch.setattr(normalisation, "SCORES", 70)  # several blocks
    enrol, test, cohort = table(6), table(8), table(30).vectors[:, 0]
    rows = DRAW.integers(0, 6, 20), DRAW.integers(0, 8, 20)
    given = Scorer(None, norm, cohort, top=7)(enrol, test, *rows, "best")
    for n, (i, j) in enumerate(zip(*rows)):
        pair = enrol.vectors[i, 0], test.vectors[j, 0]
        expected = slow_norm(*pair, cohort, norm, 7)
        assert given[n] == pytest.approx(expected, abs=1e-4)


def test_the_best_slot_is_chosen_after_normalisation():
    enrol, test, cohort = table(3), table(4, slots=2), table(9).vectors[:, 0]
    rows = np.repeat(range(3), 4), np.tile(range(4), 3)
    given = Scorer(None, "t", cohort)(enrol, test, *rows, "best")
    for n, (i, j) in enumerate(zip(*rows)):
        expected = max(
            slow_norm(enrol.vectors[i, 0], slot, cohort, "t", None)
            for slot in test.vectors[j]
        )
        assert given[n] == pytest.approx(expected, abs=1e-4)


def test_equal_cohort_scores_are_selected_as_often_as_asked_for():
    cohort = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    mean, deviation = normalisation.cohort_statistics(
        np.array([[1.0, 0.0], [0.0, 1.0]]), cohort, top=2
    )
    assert mean.tolist() == [1.0, 0.5]
    assert deviation == pytest.approx([normalisation.SMALLEST, 0.5**0.5])


def test_the_subtracted_mean_moves_both_sides():
    enrol, test, mean = table(3), table(3), DRAW.normal(size=6)
    given = Scorer(Cosine(mean))(enrol, test, [0, 1], [2, 1], "loudest")
    for score, i, j in zip(given, [0, 1], [2, 1]):
        pair = enrol.vectors[i, 0] - mean, test.vectors[j, 0] - mean
        assert score == pytest.approx(cosine(*pair), abs=1e-6)


def test_speaker_means_are_taken_one_speaker_at_a_time():
    vectors, speakers = DRAW.normal(size=(9, 3)), np.array(list("bacabcabc"))
    expected = [vectors[speakers == name].mean(0) for name in "abc"]
    np.testing.assert_allclose(speaker_means(vectors, speakers), expected)


def speakers_of(number, each, width=8):
    """Embeddings of a two-covariance model with its labels."""
    within = DRAW.normal(size=(width, width)) / 3
    between = DRAW.normal(size=(width, 3))
    labels = np.repeat(np.arange(number), each)
    own = DRAW.normal(size=(number, 3)) @ between.T
    noise = DRAW.normal(size=(len(labels), width)) @ within.T
    return (own[labels] + noise + 5).astype(np.float32), labels


def container(prepared, models, rows):
    """SpeechBrain's form of some embeddings."""
    nothing = np.array([None] * len(rows))
    names, ones = np.array([f"u{row}" for row in rows]), np.ones((len(rows), 1))
    return PLDA_LDA.StatObject_SB(
        models, names, nothing, nothing, ones, prepared[rows]
    )


@pytest.fixture
def trained():
    """Embeddings, ours trained on them, and SpeechBrain's own training."""
    vectors, labels = speakers_of(40, 6)
    ours, theirs = PLDA(vectors, labels, rank=3), PLDA_LDA.PLDA(rank_f=3)
    names = np.array([f"s{label}" for label in labels])
    rows = np.arange(len(labels))
    theirs.plda(container(ours.prepare(vectors), names, rows))
    return vectors, ours, theirs


def test_plda_scores_are_speechbrains(trained):
    vectors, ours, theirs = trained
    rows = np.arange(0, 60, 6)
    names = np.array([f"u{row}" for row in rows])
    side = container(ours.prepare(vectors), names, rows)
    scores = PLDA_LDA.fast_PLDA_scoring(
        side,
        side,
        PLDA_LDA.Ndx(models=names, testsegs=names),
        theirs.mean,
        theirs.F,
        theirs.Sigma,
    )
    order = [int(name[1:]) for name in scores.modelset]
    given = ours.enrol(vectors[order]) @ ours.test(vectors[order]).T
    np.testing.assert_allclose(given, scores.scoremat, atol=1e-3)


def test_plda_scores_are_the_ratio_of_two_gaussians(trained):
    vectors, ours, theirs = trained
    between = theirs.F @ theirs.F.T
    total = between + theirs.Sigma
    joint = np.block([[total, between], [between, total]])

    def density(vector, covariance):
        _, size = np.linalg.slogdet(2 * np.pi * covariance)
        return -(size + vector @ np.linalg.solve(covariance, vector)) / 2

    for i, j in [(0, 1), (0, 7), (12, 90)]:
        one, two = ours.prepare(vectors[[i, j]]) - theirs.mean
        expected = density(np.append(one, two), joint)
        expected -= density(one, total) + density(two, total)
        given = ours.enrol(vectors[i]) @ ours.test(vectors[j])
        assert given == pytest.approx(expected, abs=1e-3)


def test_plda_tells_speakers_apart_and_takes_a_norm():
    vectors, labels = speakers_of(60, 5)
    plda = PLDA(vectors[:200], labels[:200], rank=3)
    enrol = Embeddings(vectors[200::5, None], np.ones((20, 1)))
    test = Embeddings(vectors[201::5, None], np.ones((20, 1)))
    rows = np.repeat(range(20), 20), np.tile(range(20), 20)
    same = rows[0] == rows[1]
    for norm in ("none", "as"):
        scorer = Scorer(plda, norm, vectors[:200], top=20)
        scores = scorer(enrol, test, *rows, "loudest")
        assert scores[same].mean() > scores[~same].mean() + scores.std()


@pytest.mark.parametrize(
    ("norm", "cohort", "top", "message"),
    [
        ("x", None, 3, "'x' was given; it is one of"),
        ("s", None, 3, "'s' needs a cohort"),
        ("as", np.ones((2, 6)), 3, "cohort has 2 members, the 3 closest"),
        ("as", np.ones((2, 6)), 1, "it is 2 or more"),
    ],
)
def test_norms_that_cannot_be_are_refused(norm, cohort, top, message):
    with pytest.raises(BadInputError, match=message):
        Scorer(None, norm, cohort, top)


def test_embeddings_of_several_dimensions_are_refused():
    with pytest.raises(BadInputError, match="enrolment 6, test 5, cohort 4"):
        Scorer(None, "s", np.ones((3, 4)))(
            table(2), table(2, width=5), [0], [1], "loudest"
        )


def test_plda_of_too_few_embeddings_is_refused():
    with pytest.raises(BadInputError, match="2 problems"):
        PLDA(np.ones((3, 6)), np.arange(3))


def backends(vectors, labels):
    """All backends, trained on vectors that may be of any length."""
    mean = vectors.mean(0)
    parted = TwoPart(Cosine(vectors[:, :4].mean(0)), parts=2)
    return [Cosine(), Cosine(mean), PLDA(vectors, labels, rank=3), parted]


def mean_models(backend, vectors, members):
    setting = Setting(Scorer(backend))
    cuts = Embeddings(vectors[:, None], np.ones((len(vectors), 1)))
    return enrol_models(None, None, members, cuts, setting, "cpu")


@pytest.mark.parametrize("kind", range(4))
def test_the_mean_of_one_cut_is_that_cut(kind):
    vectors, labels = speakers_of(40, 6)
    backend = backends(vectors, labels)[kind]
    alone = mean_models(backend, vectors, [[row] for row in range(9)])
    given, expected = (
        backend.enrol(some) for some in (alone.vectors[:, 0], vectors[:9])
    )
    np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", range(4))
def test_the_length_of_embeddings_does_not_count(kind):
    vectors, labels = speakers_of(40, 6)
    members = [np.flatnonzero(labels == label) for label in range(8)]
    tests = np.arange(100, 140)
    scores = []
    for scale in (1, 30):
        ours = scale * vectors
        backend = backends(ours, labels)[kind]
        models = mean_models(backend, ours, members).vectors[:, 0]
        scores.append(backend.enrol(models) @ backend.test(ours[tests]).T)
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-3)


def test_a_mean_is_taken_of_centred_cuts_of_length_one():
    vectors, mean = DRAW.normal(size=(5, 6)), DRAW.normal(size=6)
    models = mean_models(Cosine(mean), vectors, [[0, 1, 2], [3, 4]]).vectors
    centred = vectors - mean
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    for model, own in zip(models[:, 0], ([0, 1, 2], [3, 4])):
        assert Cosine(mean).enrol(model) @ directions[0] == pytest.approx(
            cosine(directions[own].sum(0), directions[0]), abs=1e-6
        )
