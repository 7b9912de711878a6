"""How far error rates may be trusted: bootstrap over speakers."""

from collections.abc import Sequence

import numpy as np

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.metrics import Labels, Scores
from speechbrain_ssl.evaluation.ranking import checked


def speaker_intervals(
    scores: Scores,
    targets: Labels,
    enrol_speakers: Sequence,
    test_speakers: Sequence,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of EER and minDCF when other speakers were drawn.

    Trials that share a speaker are not independent, so speakers are drawn
    with replacement, not trials. A target trial counts as often as its
    speaker was drawn, a nontarget trial as often as its two speakers meet.
    Scores are sorted once; a sample costs one pass over them.

    Source: Poh, Martin, Bengio, "Performance generalization in biometric
    authentication using joint user-specific and sample bootstraps", 2007.

    Differs: both sides of a nontarget trial are drawn.

    Arguments
    ---------
    scores, targets : array, tensor or sequence, shape (trials,)
        As for `evaluation.metrics.eer`.
    enrol_speakers, test_speakers : sequence, shape (trials,)
        Speaker of each side, any labels.
    samples : int
        Draws; 200 for a first look, 1000 for a paper.
    confidence : float
        Share of the draws that lies within, 0 to 1.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        `eer` and `min_dcf` (prior 0.01, normalised): (lowest, highest).

    Raises
    ------
    BadInputError
        As for `eer`, and if the labels do not fit the trials or name fewer
        than two speakers.

    Example
    -------
    >>> scores, targets = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3], [1, 0] * 3
    >>> enrol, test = list("aabbcc"), list("abbcca")
    >>> speaker_intervals(scores, targets, enrol, test, samples=50)["eer"]
    (0.0, 0.0)
    """
    scores, is_target = checked(scores, targets)
    both = np.concatenate([list(enrol_speakers), list(test_speakers)])
    names, codes = np.unique(both, return_inverse=True)
    problems = []
    if len(enrol_speakers) != len(scores) or len(codes) != 2 * len(scores):
        problems.append(
            f"{len(enrol_speakers)} enrolment and {len(test_speakers)} test "
            f"speakers were given for {len(scores)} trials"
        )
    elif len(names) < 2:
        problems.append(f"the trials have {len(names)} speaker; 2 are needed")
    refuse("speakers", problems, "Give each side of each trial its speaker.")
    order = scores.argsort(kind="stable")
    ranked, is_target = scores[order], is_target[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    codes = codes.astype(np.int32)
    enrol, test = codes[: len(order)][order], codes[len(order) :][order]
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(samples):
        times = np.bincount(
            generator.integers(len(names), size=len(names)),
            minlength=len(names),
        ).astype(np.int32)
        weights = times[enrol]
        own = np.where(is_target, weights, 0).cumsum()
        other = np.where(is_target, 0, weights * times[test]).cumsum()
        if own[-1] and other[-1]:
            draws.append(
                _rates(own[last] / own[-1], 1 - other[last] / other[-1])
            )
    problem = "no draw has target and nontarget trials"
    refuse("speakers", [] if draws else [problem], "Give more trials.")
    tail = (1 - confidence) / 2
    edges = np.quantile(draws, [tail, 1 - tail], axis=0).T
    return {
        name: (float(low), float(high))
        for name, (low, high) in zip(("eer", "min_dcf"), edges)
    }


def _rates(misses, alarms):
    closest = abs(alarms - misses).argmin()
    equal = (alarms[closest] + misses[closest]) / 2
    return equal, (misses + 99 * alarms).min()
