"""Scores to log-likelihood ratios, with quality measures of the recordings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import write_json
from speechbrain_ssl.evaluation.metrics import Labels, Scores
from speechbrain_ssl.evaluation.ranking import checked

RIDGE = 1e-6  # keeps weights finite where a score separates the kinds
PLAIN = {  # what `read_plain` takes, see verify.yaml
    "network": None,
    "backend": "cosine",
    "subtract_mean": False,
    "score_norm": "none",
    "two_part": False,
}
LISTS = ("names", "shift", "scale", "weights")


class Calibration(NamedTuple):
    """A linear map of a score and quality measures to a log-likelihood ratio.

    Arguments
    ---------
    names : list of str
        `score`, then the measures.
    shift, scale : list of float
        Subtracted from each and divided by, as found where it was trained.
    weights : list of float
        Of each after that.
    offset : float
        Added.
    setting : dict
        What made the scores, to be the same where it is applied.
    threshold : dict
        `false_alarm_rate` and the ratio above which a trial is accepted so
        that no more nontargets pass; empty without one.
    model : list of float
        Of the model that made the scores, see `embed.probe_vector`.
    """

    names: list[str]
    shift: list[float]
    scale: list[float]
    weights: list[float]
    offset: float
    setting: dict[str, Any]
    threshold: dict[str, float]
    model: list[float] = []

    def __call__(self, scores: Scores, measures: dict) -> np.ndarray:
        """Log-likelihood ratios, natural logarithm.

        Arguments
        ---------
        scores : array, shape (trials,)
            Of the same setting.
        measures : dict
            Name to (trials,), at least those it was trained with.

        Returns
        -------
        numpy.ndarray
            (trials,) float64.

        Raises
        ------
        BadInputError
            If a measure is missing.
        """
        missing = [name for name in self.names[1:] if name not in measures]
        problems = [f"the measure '{name}' is missing" for name in missing]
        refuse("calibration", problems, "Give the measures it was fitted with.")
        columns = _columns(scores, measures, self.names[1:])
        columns -= np.array(self.shift)
        columns /= np.array(self.scale)
        return columns @ np.array(self.weights) + self.offset

    def save(self, path: Union[str, Path]) -> None:
        """Write the JSON that `read_calibration` reads."""
        write_json(self._asdict(), path)


def fit_calibration(
    scores: Scores,
    targets: Labels,
    measures: dict[str, np.ndarray],
    p_target: float = 0.5,
) -> Calibration:
    """Logistic regression on trials that are not those reported.

    The two kinds of trials are weighted to the prior, and its log odds are
    left out of the offset, so that the result is a log-likelihood ratio.

    Source: Brummer et al., "Fusion of heterogeneous speaker recognition
    systems in the STBU submission", 2007 (prior-weighted logistic
    regression); Thienpondt et al., "The IDLab VoxSRC-20 submission", 2021
    (quality measures).

    Arguments
    ---------
    scores, targets : array, shape (trials,)
        As for `evaluation.metrics.eer`.
    measures : dict
        Name to (trials,); may be empty.
    p_target : float
        Prior at which the fit is best, 0 to 1.

    Returns
    -------
    Calibration
        Without setting and threshold.

    Raises
    ------
    BadInputError
        As for `eer`, and if a measure is not finite.

    Example
    -------
    >>> fitted = fit_calibration([1, 0.5, 0.6, -1], [1, 1, 0, 0], {})
    >>> bool(fitted([2.0], {})[0] > 0 > fitted([-2.0], {})[0])
    True
    """
    scores, targets = checked(scores, targets)
    names = list(measures)
    columns = _columns(scores, measures, names)
    problems = [
        f"{np.count_nonzero(~np.isfinite(measures[name]))} values of "
        f"'{name}' are not finite"
        for name in names
        if not np.isfinite(measures[name]).all()
    ]
    refuse("measures", problems, "Leave the measure out.")
    shift, scale = columns.mean(0), columns.std(0)
    # A constant measure, but for rounding, gets no weight.
    constant = scale <= 1e-6 * np.abs(shift)
    columns -= shift
    columns[:, constant] = 0.0
    scale[constant] = 1.0
    columns /= scale
    signs = np.where(targets, 1.0, -1.0)
    shares = np.where(
        targets, p_target / targets.sum(), (1 - p_target) / (~targets).sum()
    )
    prior = np.log(p_target / (1 - p_target))

    def loss(parameters):
        weights = parameters[:-1]
        margins = signs * (columns @ weights + parameters[-1] + prior)
        slopes = -shares * signs * expit(-margins)
        value = shares @ np.logaddexp(0, -margins)
        gradient = np.append(columns.T @ slopes + RIDGE * weights, slopes.sum())
        return value + RIDGE / 2 * weights @ weights, gradient

    start = np.zeros(columns.shape[1] + 1)
    found = minimize(
        loss, start, jac=True, method="BFGS", options={"gtol": 1e-8}
    ).x
    return Calibration(
        ["score", *names],
        shift.tolist(),
        scale.tolist(),
        found[:-1].tolist(),
        float(found[-1]),
        {},
        {},
    )


def read_calibration(
    path: Union[str, Path],
    setting: dict[str, Any],
    model: Optional[list[float]] = None,
) -> Calibration:
    """Calibration of a JSON, refused where other scores were calibrated.

    Arguments
    ---------
    path : str or pathlib.Path
        Written by `Calibration.save`.
    setting : dict
        What makes the scores now.
    model : list of float, optional
        Of the model that makes them, see `embed.probe_vector`.

    Returns
    -------
    Calibration

    Raises
    ------
    BadInputError
        If it is no calibration or that of another setting or model.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = Calibration(**content)
        sizes = {len(getattr(found, name)) for name in LISTS}
        numbers = [*found.shift, *found.scale, *found.weights, found.offset]
        whole = len(sizes) == 1 and np.isfinite(numbers).all()
    except (OSError, ValueError, TypeError) as error:
        refuse(str(path), [f"it is no calibration ({error})"], "Fit it again.")
    problems = [] if whole else ["its numbers do not fit each other"]
    if model and found.model and not _alike(model, found.model):
        problems.append("it was fitted to scores of another model")
    problems += [
        f"it was fitted with {name}={found.setting.get(name)!r}; this is "
        f"{value!r}"
        for name, value in setting.items()
        if found.setting.get(name) != value
    ]
    refuse(str(path), problems, "Fit it with these values, or change them.")
    return found


def read_plain(
    path: Union[str, Path], model: Optional[list[float]] = None
) -> Calibration:
    """Calibration of plain cosines of two recordings.

    Arguments
    ---------
    path, model
        As for `read_calibration`.

    Returns
    -------
    Calibration
        Of the score alone.

    Raises
    ------
    BadInputError
        As for `read_calibration`, and if it has measures.
    """
    found = read_calibration(path, PLAIN, model)
    refuse(
        str(path),
        [f"it needs {name} of a trial list" for name in found.names[1:]],
        "Fit one without measures.",
    )
    return found


def _alike(one, other):
    """Whether two models gave the same vector, but for rounding."""
    if len(one) != len(other):
        return False
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return np.dot(one, other) > 0.999 * lengths


def _columns(scores, measures: dict, names: Sequence[str]) -> np.ndarray:
    columns = [np.asarray(scores), *(measures[name] for name in names)]
    return np.stack(columns, axis=1).astype(np.float64)
