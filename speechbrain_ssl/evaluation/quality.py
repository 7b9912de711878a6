"""Quality measures of trials: what calibration adds to the score."""

from typing import Any

import numpy as np

from speechbrain_ssl.evaluation.embed import Embeddings
from speechbrain_ssl.evaluation.scoring import Scorer, loudest


def quality_measures(
    scorer: Scorer, trial_list: Any, enrol: Embeddings, test: Embeddings
) -> dict[str, np.ndarray]:
    """The lower and the higher of both sides, for each measure.

    Source: Thienpondt et al., "The IDLab VoxSRC-20 submission", 2021.

    Arguments
    ---------
    scorer : Scorer
        Its cohort, where there is one, gives the cohort means.
    trial_list : TrialList
        Its `rows` and `test` hold start and stop.
    enrol, test : Embeddings
        Of both sides.

    Returns
    -------
    dict
        `duration` (logarithm of samples), `norm` (of the embedding) and
        `cohort_mean` with `_low` and `_high` to (trials,) float32. Models of
        several cuts last as long as all of them.
    """
    rows = trial_list.rows
    samples = (rows["stop"] - rows["start"]).to_numpy()
    tested = samples[trial_list.tested]
    if trial_list.members is not None:
        samples = np.array([samples[own].sum() for own in trial_list.members])
    sides = {"duration": (np.log(samples), np.log(tested))}
    vectors = loudest(enrol), loudest(test)
    sides["norm"] = tuple(np.linalg.norm(part, axis=1) for part in vectors)
    if scorer.cohort is not None:
        backend = scorer.backend
        sides["cohort_mean"] = (
            scorer.statistics(backend.enrol(vectors[0]), "enrol").mean[:, 0],
            scorer.statistics(backend.test(vectors[1]), "test").mean[:, 0],
        )
    measures = {}
    for name, (one, two) in sides.items():
        pairs = one[trial_list.enrol_rows], two[trial_list.test_rows]
        for end, choose in (("low", np.minimum), ("high", np.maximum)):
            measures[f"{name}_{end}"] = choose(*pairs).astype(np.float32)
    return measures
