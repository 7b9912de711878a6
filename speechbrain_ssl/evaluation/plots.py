"""Pictures of error rates and of training; they need the extra `plots`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.evaluation.metrics import Labels, Scores, det_points, eer

logger = logging.getLogger(__name__)

MOST_POINTS = 2000  # of a drawn line: more are not seen, only written
PERCENTS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 95, 99)
COLOURS = ("#1f5fa8", "#c8501e", "#2f7d4f", "#7a4aa0", "#8a6d1f", "#555555")


def plot_det(
    systems: Mapping[str, tuple[Scores, Labels]], path: Union[str, Path]
) -> bool:
    """Detection error trade-off curves with the equal error rates marked.

    Axes are normal deviates (probits), where Gaussian scores give straight
    lines, labelled in percent.

    Source: Martin et al., "The DET curve in assessment of detection task
    performance", 1997.

    Arguments
    ---------
    systems : mapping from str to (scores, targets)
        Name in the legend, and what `evaluation.metrics.eer` takes.
    path : str or pathlib.Path
        The PNG file; complete or not written at all.

    Returns
    -------
    bool
        False, with one line logged, where matplotlib is not installed.

    Raises
    ------
    BadInputError
        If there are no systems or their scores cannot be used.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> scores, targets = [0.9, 0.2, 0.4, 0.1], [1, 1, 0, 0]
    >>> plot_det({"toy": (scores, targets)}, f"{folder}/det.png")
    True
    """
    refuse(str(path), [] if systems else ["there are no systems"], "Give one.")
    figure = _figure(6, 6)
    if figure is None:
        return False
    axes = figure.add_subplot(1, 1, 1)
    smallest, largest = 0.5, 0.5
    for number, (name, (scores, targets)) in enumerate(systems.items()):
        colour = COLOURS[number % len(COLOURS)]
        value, threshold = eer(scores, targets)
        alarms, misses, thresholds = det_points(scores, targets)
        at = np.searchsorted(thresholds, threshold)
        label = f"{name} (EER {100 * value:.2f} %)"
        point = _probit(np.array([alarms[at], misses[at]]))
        axes.plot(*_thinned(_probit(alarms), _probit(misses)), color=colour)
        axes.plot(*point, "o", color=colour)
        axes.plot([], [], "o-", color=colour, label=label)
    del smallest, largest
    return True


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Union[str, Path],
    x_label: str,
    y_label: str,
) -> bool:
    """Training curves, one panel each, e.g. loss terms and validation EER.
    """


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_POINTS` of a line's points, spread along its length."""
