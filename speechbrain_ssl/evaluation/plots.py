"""Pictures of errors and of training; they need the extra `plots`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.evaluation.metrics import Labels, Scores, det_points, eer
from speechbrain_ssl.evaluation.ranking import checked

logger = logging.getLogger(__name__)

MOST_POINTS = 2000  # of a drawn line: more cannot be seen
PERCENTS = (0.01, 0.1, 0.5, 2, 5, 10, 20, 40, 60, 80, 95, 99)
COLOURS = ("#1f5fa8", "#c8501e", "#2f7d4f", "#7a4aa0", "#9a7b1a", "#444444")
GRID = {"color": "#dddddd", "linewidth": 0.6}


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
    figure = _figure(5.5, 5.5)
    if figure is None:
        return False
    axes = figure.add_subplot(1, 1, 1)
    lowest, highest = 0.05, 0.5
    for number, (name, (scores, targets)) in enumerate(systems.items()):
        again, place = divmod(number, len(COLOURS))
        colour, dash = COLOURS[place], ("-", "--", ":")[again % 3]
        value, _ = eer(scores, targets)
        alarms, misses, _ = det_points(scores, targets)
        curve = _thinned(_probit(alarms), _probit(misses))
        axes.plot(*curve, dash, color=colour)
        label = f"{name}, EER {100 * value:.2f} %"
        mark = _probit(np.array([value]))
        axes.plot(mark, mark, "o", color=colour)
        axes.plot([], [], f"o{dash}", color=colour, label=label)
        rates = np.concatenate([alarms, misses])
        lowest = min(lowest, rates[rates > 0].min())
        highest = max(highest, min(1.5 * value, 0.99))
    _draw_probit_axes(axes, lowest, highest)
    axes.set_xlabel("false alarms (%)")
    axes.set_ylabel("misses (%)")
    # Above the axes: within them some system's curve would be hidden.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return _save(figure, path)


def plot_histograms(
    systems: Mapping[str, tuple[Scores, Labels]], path: Union[str, Path]
) -> bool:
    """Scores of target and nontarget trials, a panel a system.

    Each kind has the same area, however many trials it has; the threshold of
    the equal error rate is marked.

    Arguments
    ---------
    systems, path
        As for `plot_det`.

    Returns
    -------
    bool
        False, with one line logged, where matplotlib is not installed.

    Raises
    ------
    BadInputError
        As for `plot_det`.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> scores, targets = [0.9, 0.2, 0.4, 0.1], [1, 1, 0, 0]
    >>> plot_histograms({"toy": (scores, targets)}, f"{folder}/scores.png")
    True
    """
    refuse(str(path), [] if systems else ["there are no systems"], "Give one.")
    columns = min(len(systems), 3)
    rows = -(-len(systems) // columns)
    figure = _figure(0.6 + 3.4 * columns, 0.4 + 2.5 * rows)
    if figure is None:
        return False
    for number, (name, (scores, targets)) in enumerate(systems.items()):
        value, threshold = eer(scores, targets)
        scores, targets = checked(scores, targets)
        edges = np.linspace(scores.min(), scores.max(), 101)
        axes = figure.add_subplot(rows, columns, number + 1)
        kinds = (("target", targets), ("nontarget", ~targets))
        for colour, (kind, chosen) in zip(COLOURS, kinds):
            heights, _ = np.histogram(scores[chosen], edges, density=True)
            axes.stairs(heights, edges, fill=True, alpha=0.5, color=colour)
            axes.stairs(heights, edges, color=colour, label=kind)
        axes.axvline(threshold, color="#444444", linewidth=0.8, linestyle=":")
        axes.set_title(f"{name}, EER {100 * value:.2f} %", loc="left", size=9)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel("score")
        axes.legend(frameon=False, fontsize=8)
    return _save(figure, path)


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Union[str, Path],
    x_label: str,
    y_label: str,
) -> bool:
    """Training curves side by side, a panel each: loss terms, validation EER.

    Points that are not finite are left out, so that a failed run can be
    looked at as well. The last and the lowest value stand above each panel.

    Arguments
    ---------
    curves : mapping from str to sequence of (float, float)
        Title of the panel, and its points from left to right.
    path : str or pathlib.Path
        The PNG file; complete or not written at all.
    x_label, y_label : str
        What the points are, e.g. "step" and "value"; for all panels.

    Returns
    -------
    bool
        False, with one line logged, where matplotlib is not installed.

    Raises
    ------
    BadInputError
        If there are no curves, or one is not a sequence of pairs.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> curves = {"valid EER": [(1, 0.3), (2, 0.2)]}
    >>> plot_curves(curves, f"{folder}/training.png", "epoch", "fraction")
    True
    """
    lines = {name: np.array(line, dtype=float) for name, line in curves.items()}
    problems = [] if lines else ["there are no curves"]
    problems += [
        f"'{name}' has the shape {line.shape}; it is (points, 2)"
        for name, line in lines.items()
        if line.size and (line.ndim != 2 or line.shape[1] != 2)
    ]
    refuse(str(path), problems, "Give (x, y) pairs for each curve.")
    columns = min(len(lines), 3)
    rows = -(-len(lines) // columns)
    figure = _figure(0.6 + 3.4 * columns, 0.4 + 2.5 * rows)
    if figure is None:
        return False
    for number, (name, line) in enumerate(lines.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        _draw_curve(axes, name, line.reshape(-1, 2))
        if number + columns >= len(lines):
            axes.set_xlabel(x_label)
        if number % columns == 0:
            axes.set_ylabel(y_label)
    return _save(figure, path)


def plot_lines(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    path: Union[str, Path],
    x_label: str,
    y_label: str,
) -> bool:
    """Lines over named conditions, a panel each, e.g. EER by interference.

    Arguments
    ---------
    panels : mapping from str to mapping
        Title, and in it the name of each line with its value by condition;
        the conditions of the first line are the x axis.
    path : str or pathlib.Path
        The PNG file; complete or not written at all.
    x_label, y_label : str
        For all panels.

    Returns
    -------
    bool
        False, with one line logged, where matplotlib is not installed.

    Raises
    ------
    BadInputError
        If there are no panels.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> panels = {"toy": {"a": {"clean": 5.0, "0 dB": 20.0}}}
    >>> plot_lines(panels, f"{folder}/levels.png", "condition", "EER (%)")
    True
    """
    refuse(str(path), [] if panels else ["there are no panels"], "Give one.")
    figure = _figure(0.6 + 4.4 * len(panels), 5.5)
    if figure is None:
        return False
    for number, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for place, (name, values) in enumerate(lines.items()):
            again, place = divmod(place, len(COLOURS))
            axes.plot(
                list(values),
                list(values.values()),
                ("o-", "s--", "^:")[again % 3],
                color=COLOURS[place],
                label=name,
            )
        axes.set_ylim(bottom=0)
        axes.grid(**GRID)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label if number == 1 else "")
        axes.set_title(title)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.05), frameon=False)
    return _save(figure, path)


def plot_confusion(
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    path: Union[str, Path],
    title: str,
) -> bool:
    """Confusion matrix: shares of each class in colour, counts as numbers.

    Arguments
    ---------
    counts : sequence of sequence of int
        By class (row) and prediction (column).
    classes : sequence of str
        Names of both.
    path : str or pathlib.Path
        The PNG file; complete or not written at all.
    title : str
        Stands above the matrix.

    Returns
    -------
    bool
        False, with one line logged, where matplotlib is not installed.

    Raises
    ------
    BadInputError
        If the counts are not those of the classes.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> path = f"{folder}/confusion.png"
    >>> plot_confusion([[3, 1], [0, 2]], ["f", "m"], path, "sex")
    True
    """
    matrix, number = np.array(counts), len(classes)
    problem = f"counts have the shape {matrix.shape} for {number} classes"
    fits = matrix.shape == (number, number) and number
    refuse(str(path), [] if fits else [problem], "Give a row a class.")
    figure = _figure(2.5 + 0.55 * number, 2.0 + 0.5 * number)
    if figure is None:
        return False
    shares = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    axes = figure.add_subplot(1, 1, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        axes.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.5 else "#222222",
        )
    axes.set_xticks(range(number), classes, rotation=45, ha="right")
    axes.set_yticks(range(number), classes)
    axes.set(xlabel="prediction", ylabel="class")
    axes.set_title(title, loc="left", fontsize=10)
    return _save(figure, path)


def _draw_probit_axes(axes: Any, lowest: float, highest: float) -> None:
    """Ticks in percent, a grid and the diagonal, from rate to rate."""
    limits = _probit(np.array([lowest, highest]))
    axes.plot(limits, limits, color="#999999", linewidth=0.8, linestyle=":")
    ticks = [tick for tick in PERCENTS if lowest <= tick / 100 <= highest]
    places = _probit(np.array(ticks) / 100)
    axes.set_xticks(places, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(places, [f"{tick:g}" for tick in ticks])
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.grid(**GRID)


def _draw_curve(axes: Any, name: str, line: np.ndarray) -> None:
    line = line[np.isfinite(line).all(axis=1)]
    axes.set_title(name, loc="left", fontsize=10)
    axes.grid(**GRID)
    axes.spines[["top", "right"]].set_visible(False)
    if not len(line):
        axes.text(0.5, 0.5, "no finite points", ha="center")
        axes.set(xticks=[], yticks=[])
        return
    x, y = _thinned(line[:, 0], line[:, 1])
    style = "o-" if len(x) <= 30 else "-"
    width = 1.4 if len(x) <= 300 else 0.7
    axes.plot(x, y, style, color=COLOURS[0], linewidth=width, markersize=3)
    axes.locator_params(axis="x", nbins=5, integer=True)
    summary = f"last {line[-1, 1]:.3g}, lowest {line[:, 1].min():.3g}"
    axes.set_title(summary, loc="right", fontsize=8, color="#666666")


def _probit(rates: np.ndarray) -> np.ndarray:
    """Normal deviates of rates; 0 and 1 come to lie outside any axis."""
    return torch.special.ndtri(
        torch.from_numpy(rates).clamp(1e-7, 1 - 1e-7)
    ).numpy()


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up to `MOST_POINTS` points of a line, spread evenly along its length."""
    if len(x) <= MOST_POINTS:
        return x, y
    steps = [abs(np.diff(part)) / (np.ptp(part) or 1) for part in (x, y)]
    length = np.append(0.0, np.cumsum(steps[0] + steps[1]))
    places = np.linspace(0, length[-1], MOST_POINTS)
    kept = np.unique(np.searchsorted(length, places))
    return x[kept], y[kept]


def _figure(width: float, height: float) -> Optional[Any]:
    """Figure in inches that no global state of matplotlib knows about."""
    # SpeechBrain's logging shows every font that matplotlib looks at.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning('No picture: pip install "speechbrain_ssl[plots]"')
        return None
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: Any, path: Union[str, Path]) -> bool:
    with replaced_when_done(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    return True
