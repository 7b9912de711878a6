"""Pictures exist, hold what they show and need matplotlib only when drawn."""

import logging
import runpy
import sys

import numpy as np
import pytest

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.plots import (
    plot_confusion,
    plot_curves,
    plot_det,
)

SYSTEM = ([0.9, 0.7, 0.4, 0.6, 0.3, 0.2], [1, 1, 1, 0, 0, 0])
CURVES = {"loss": [(1, 3.0), (2, 2.0)], "valid EER": [(1, 0.3), (2, 0.2)]}


@pytest.fixture
def figures(monkeypatch):
    """Figures saved during a test; the file is written as well."""
    pytest.importorskip("matplotlib")
    saved, save = [], plots._save

    def keep(figure, path):
        saved.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return saved


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_det_names_each_system_with_its_eer(figures, tmp_path):
    perfect = ([2.0, 2.0, 1.0], [1, 1, 0])
    systems = {"toy": SYSTEM, "perfect": perfect}
    assert plot_det(systems, tmp_path / "new" / "det.png")
    assert is_png(tmp_path / "new" / "det.png")
    (axes,) = figures[0].axes
    assert labels_of(axes) == ["toy, EER 33.33 %", "perfect, EER 0.00 %"]


def test_long_names_are_not_cut(figures, tmp_path):
    widths = []
    for name in ("m", "m" * 60, "m" * 90):
        plot_det({name: SYSTEM}, tmp_path / "det.png")
        header = (tmp_path / "det.png").read_bytes()[16:20]  # pixels
        widths.append(int.from_bytes(header, "big"))
    assert widths[0] < widths[1] < widths[2] - 200


def test_det_axes_begin_at_five_percent_or_the_smallest_rate(figures, tmp_path):
    many = (np.arange(202.0), np.repeat([0, 1], [200, 2]))
    for number, (system, lowest) in enumerate(
        [(SYSTEM, -1.6449), (many, -2.5758)]  # probits of 5 % and 1 of 200
    ):
        plot_det({"toy": system}, tmp_path / "det.png")
        axes = figures[number].axes[0]
        starts = (axes.get_xlim()[0], axes.get_ylim()[0])
        np.testing.assert_allclose(starts, lowest, atol=1e-4)


def test_det_of_gaussian_scores_is_a_straight_line(figures, tmp_path):
    generator = np.random.default_rng(0)
    targets = np.arange(40_000) % 2
    scores = generator.standard_normal(40_000) + 2 * targets
    plot_det({"gauss": (scores, targets)}, tmp_path / "det.png")
    x, y = figures[0].axes[0].lines[0].get_data()
    assert len(x) <= 2000
    middle = (abs(x) < 2) & (abs(y) < 2)
    # Miss and false-alarm probits of unit Gaussians two apart add up to -2;
    # 20,000 trials of each kind leave some hundredths.
    np.testing.assert_allclose((x + y)[middle], -2, atol=0.15)


def test_det_marks_the_eer_on_the_diagonal(figures, tmp_path):
    plot_det({"toy": SYSTEM}, tmp_path / "det.png")
    marks = [
        line.get_data()
        for line in figures[0].axes[0].lines
        if line.get_marker() == "o" and len(line.get_xdata())
    ]
    # The probit of 1/3, from tables.
    np.testing.assert_allclose(marks, [([-0.4307], [-0.4307])], atol=1e-4)


def test_curves_have_a_panel_each_with_last_and_lowest_value(figures, tmp_path):
    assert plot_curves(CURVES, tmp_path / "curves.png", "epoch", "value")
    assert is_png(tmp_path / "curves.png")
    titles = [axes.get_title("left") for axes in figures[0].axes]
    assert titles == ["loss", "valid EER"]
    assert figures[0].axes[1].get_title("right") == "last 0.2, lowest 0.2"
    assert [axes.get_xlabel() for axes in figures[0].axes] == ["epoch"] * 2
    assert figures[0].axes[0].get_ylabel() == "value"


def test_curves_leave_out_points_that_are_not_finite(figures, tmp_path):
    nan = float("nan")
    curves = {"some": [(1, 2.0), (2, nan)], "none": [(1, nan)], "empty": []}
    assert plot_curves(curves, tmp_path / "curves.png", "step", "value")
    counts = [len(axes.lines) for axes in figures[0].axes]
    assert counts == [1, 0, 0]
    assert figures[0].axes[0].lines[0].get_xdata().tolist() == [1.0]


def test_long_curves_are_thinned_but_keep_their_ends_and_spikes(
    figures, tmp_path
):
    x = np.arange(50_000)
    y = np.where(x == 31_234, 9.0, np.sin(x / 5000))
    plot_curves({"loss": np.stack([x, y], 1)}, tmp_path / "c.png", "", "")
    kept, values = figures[0].axes[0].lines[0].get_data()
    assert len(kept) <= 2000
    assert (kept[0], kept[-1], values.max()) == (0, 49_999, 9.0)
    assert np.isin(kept, x).all() and (np.diff(kept) > 0).all()


def test_without_matplotlib_one_line_says_what_to_install(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING):
        assert plot_det({"toy": SYSTEM}, tmp_path / "det.png") is False
        assert plot_curves(CURVES, tmp_path / "c.png", "x", "y") is False
    assert len(caplog.messages) == 2
    assert 'pip install "speechbrain_ssl[plots]"' in caplog.messages[0]
    assert not list(tmp_path.iterdir())


def test_the_module_can_be_imported_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "plot_det" in runpy.run_path(plots.__file__)


def test_drawing_leaves_the_global_state_of_pyplot_alone(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    plot_det({"toy": SYSTEM}, tmp_path / "det.png")
    assert pyplot.get_fignums() == before


def test_a_failed_picture_leaves_the_earlier_one(figures, tmp_path):
    path = tmp_path / "det.png"
    path.write_bytes(b"earlier")
    with pytest.raises(BadInputError, match="nontarget"):
        plot_det({"toy": ([0.1], [1])}, path)
    assert path.read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "there are no curves"),
        ({"loss": [1.0, 2.0]}, r"'loss' has the shape \(2,\)"),
        ({"loss": [(1, 2, 3)]}, r"'loss' has the shape \(1, 3\)"),
    ],
)
def test_curves_that_are_no_pairs_are_refused(tmp_path, curves, message):
    with pytest.raises(BadInputError, match=message):
        plot_curves(curves, tmp_path / "c.png", "x", "y")


def test_a_det_plot_of_no_system_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="there are no systems"):
        plot_det({}, tmp_path / "det.png")


def test_confusion_shows_counts_under_both_names(figures, tmp_path):
    path = tmp_path / "confusion.png"
    assert plot_confusion([[3, 1], [0, 0]], ["f", "m"], path, "dino: sex")
    assert is_png(path)
    (axes,) = figures[0].axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "3", (1, 0): "1", (0, 1): "0", (1, 1): "0"}
    names = [
        [tick.get_text() for tick in ticks]
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels())
    ]
    assert names == [["f", "m"], ["f", "m"]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "class")
    shown = axes.images[0].get_array()
    assert np.allclose(shown, [[0.75, 0.25], [0, 0]])


@pytest.mark.parametrize("counts", [[], [[1, 2]], [[1, 2], [3, 4], [5, 6]]])
def test_a_confusion_that_is_not_of_the_classes_is_refused(tmp_path, counts):
    with pytest.raises(BadInputError, match="for 2 classes"):
        plot_confusion(counts, ["f", "m"], tmp_path / "c.png", "sex")
