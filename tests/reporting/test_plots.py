import re

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pulmo.metrics.calibration import Temperature
from pulmo.metrics.curves import decision_curve, precision_recall_curve, prevalence_curve, risk_coverage, roc_curve
from pulmo.metrics.decisions import Abstention, OperatingPoint
from pulmo.metrics.discrimination import discriminate
from pulmo.metrics.estimates import Estimate
from pulmo.metrics.locked import Locked
from pulmo.metrics.reliability import Bin
from pulmo.reporting import figures, galleries, plots
from pulmo.reporting.canvas import drawing
from pulmo.reporting.galleries import Films, HeatMaps


def estimate(value, half=0.02):
    return Estimate(value, *((None, None) if half is None else (value - half, value + half)), 80, 80)


UNDEFINED = Estimate(None, None, None, 80, 80)


@pytest.fixture(scope="module")
def films():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    return labels, 1 / (1 + np.exp(-(labels * 3 - 1.5 + rng.normal(size=80)))), np.arange(80)


@pytest.fixture(scope="module")
def drawings(films):
    """Every figure: what it draws, and words that must be in it."""
    labels, scores, patients = films
    called = scores > 0.5
    estimates, replicates = discriminate(labels, scores, called, patients, 50)
    roc = roc_curve(labels, scores, patients, 50)
    recall = precision_recall_curve(labels, scores)
    risk = risk_coverage(labels, called, np.abs(scores - 0.5), patients, 50)
    decision, prevalence = decision_curve(labels, scores, patients, 50), prevalence_curve(estimates, replicates)
    two = {"test": estimate(0.91), "val": estimate(0.97, None)}
    points = {"test": (0.8, 0.9)}
    bins = [
        Bin(0.2 * i, 0.2 * i + 0.2, 0.15 * i, 0.15 * i - 0.05, 0.15 * i + 0.1, 3**i, 3**i, 0.2 * i + 0.1)
        for i in range(5)
    ]
    rows = [("bacterial (10)", {"auroc": estimate(0.9), "specificity": UNDEFINED})] * 3
    robust = {
        name: [plots.Level(10 * i, estimate(0.9 - 0.1 * i), estimate(0.1 * i)) for i in range(1, 6)]
        for name in ("blur", "noise", "gamma", "crop", "rotation", "polarity")
    }
    robust["blur"][0] = robust["blur"][0]._replace(auroc=UNDEFINED)
    history = {"epoch": [1, 2, 3], "lr": [0.1, 0.2, 0.1], "val_auroc": [0.8, 0.9123, 0.9], "val_loss": [3, 2, 1]}
    tied = history | {"val_auroc": [1.0, 1.0, 0.9], "val_loss": [3.0, 2.0, 1.0]}
    images = [np.full((20, 30), 25 * i, dtype=np.uint8) for i in range(8)]
    heats = [np.linspace(0, 1, 600).reshape(20, 30)] * 8
    captions = [f"film {i}" for i in range(8)]
    counts = {"train": {"normal": 1100, "viral": 5}, "test": {"normal": 2, "unknown": 4}}
    curves, lines = {"test": roc, "val": roc}, {"test": recall, "val": recall}
    chance = {"test": 0.625, "val": 0.74}
    references = {"auroc": 0.95, "specificity": None}
    p, g = plots, galleries
    return {
        "roc": (p.plot_roc, (curves, two, points), ["test: 0.910 (0.890–0.930)", "val: 0.970", "operating point"]),
        "pr": (p.plot_precision_recall, (lines, two, chance, {}), ["chance, val: 0.740", "test: 0.910 (0.890–0.930)"]),
        "sweep": (p.plot_sweep, ([(2, 0.9), (0, 0.8)], [(1, 0.6)]), ["best so far", "stopped early, best epoch"]),
        "confusion": (p.plot_confusion, ({"tp": 1380, "fp": 42, "fn": 0, "tn": 126}, "T"), ["1,380", "75.0% of row"]),
        "reliability": (p.plot_reliability, ({"before": bins, "after": bins[1:]}, "On test"), ["On test", "before"]),
        "decision": (
            p.plot_decision_curve,
            (decision, 0.31, 0.625),
            ["treat none", "Decision curve, prevalence 62.5%", "operating point (0.31)"],
        ),
        "risk": (p.plot_risk_coverage, ({"test": risk}, points), ["locked abstention band", "100%"]),
        "prevalence": (p.plot_prevalence, (prevalence, 0.625), ["these films (62.5%)", "NPV (95% band)"]),
        "forest": (
            p.plot_forest,
            (rows, ["auroc", "specificity"], references),
            ["AUROC", "bacterial (10)", "–"],
        ),
        "robust": (
            p.plot_robustness,
            (robust, estimate(0.95)),
            ["polarity", "share of decisions flipped (95% band)", "50"],
        ),
        "training": (g.plot_training, (history,), ["AUROC (best val 0.9123)", "best epoch (2)"]),
        "tied training": (g.plot_training, (tied,), ["AUROC (best val 1.0000)", "best epoch (2)"]),
        "balance": (g.plot_class_balance, (counts,), ["1,105", "viral", "PNEUMONIA, type unknown"]),
        "films": (g.plot_films, (galleries.Films(images, captions, [True] * 8),), ["film 7"]),
        "heat": (g.plot_heat_maps, (galleries.HeatMaps(images, heats, captions),), ["film 7"]),
    }


AXES = {  # of each plot; one where none is named
    "reliability": 2,
    "forest": 2,
    "robust": 6,
    "training": 3,
    "tied training": 3,
    "films": 9,
    "heat": 16,
}
NAMES = [
    "roc",
    "pr",
    "confusion",
    "reliability",
    "decision",
    "risk",
    "prevalence",
    "forest",
    "robust",
    "training",
    "tied training",
    "balance",
    "films",
    "heat",
    "sweep",
]


def save(path, name, plot, arguments):
    """A file with the plot in as many axes as it needs."""
    count = AXES.get(name, 1)
    with drawing(path, 3 * count, 5, columns=count) as axes:
        plot(axes if count > 1 else axes[0], *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_shows_its_numbers(drawings, name, tmp_path):
    plot, arguments, words = drawings[name]
    save(tmp_path / "plots" / "figure.svg", name, plot, arguments)
    shown = set(re.findall(r"<!-- (.*?) -->", (tmp_path / "plots" / "figure.svg").read_text()))
    assert not {word for word in words if word not in shown}
    save(tmp_path / "figure.png", name, plot, arguments)
    picture = cv2.imread(str(tmp_path / "figure.png"))
    assert picture.shape[1] > 300
    assert picture.std() > 5
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["figure.svg"]


def test_bins_are_pooled_to_fifths_by_their_films():
    rows = [
        Bin(above=0.0, up_to=0.1, observed=0.1, low=0.0, high=0.2, films=30, patients=20, probability=0.05),
        Bin(above=0.1, up_to=0.2, observed=0.5, low=0.3, high=0.9, films=10, patients=10, probability=0.15),
        Bin(above=0.9, up_to=1.0, observed=1.0, low=None, high=None, films=5, patients=5, probability=0.95),
    ]
    pooled = plots.pool_bins(rows)
    assert pooled.index.tolist() == [0, 4]
    assert pooled.films.tolist() == [40, 5]
    first, last = (pooled.loc[fifth].tolist()[1:] for fifth in (0, 4))
    assert first == pytest.approx([0.075, 0.2, 0.2 - np.hypot(0.075, 0.05), 0.2 + np.hypot(0.075, 0.1)])
    assert last == pytest.approx([0.95, 1, 1, 1])


def test_every_missed_pneumonia_is_shown(tmp_path):
    films = pd.DataFrame({"subtype": ["viral", "normal", "bacterial"], "label": [1, 0, 1], "row": [0, 1, 2]})
    locked = Locked(Temperature(1.0), OperatingPoint("fixed", 0.5, 0.5, 0.5), Abstention(0.02, 0.5, 0.5, reached=True))
    images = np.zeros((3, 40, 40), dtype=np.uint8)
    for name, probabilities in (("none", [0.9, 0.8, 0.6]), ("two", [0.1, 0.8, 0.2])):
        (tmp_path / name).mkdir()
        figures.draw_predictions(films.assign(prob_pneumonia=probabilities), images, locked, tmp_path / name, 0)
    assert not (tmp_path / "none" / "missed.png").exists()
    assert cv2.imread(str(tmp_path / "two" / "missed.png")).shape[1] == int(2 * 1.55 * 150)


def test_the_same_numbers_give_the_same_bytes(drawings, tmp_path):
    plot, arguments, _ = drawings["roc"]
    for suffix in ("png", "svg"):
        for name in ("a", "b"):
            save(tmp_path / f"{name}.{suffix}", "roc", plot, arguments)
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_failed_drawing_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        save(tmp_path / "confusion.png", "confusion", plots.plot_confusion, ({"tp": 1}, ""))
    with pytest.raises(ValueError, match="format"):
        save(tmp_path / "a.xyz", "confusion", plots.plot_confusion, ({"tp": 1, "fp": 1, "fn": 1, "tn": 1}, ""))
    assert not list(tmp_path.iterdir())


def test_only_wrong_films_are_framed(tmp_path):
    images = [np.zeros((50, 50), dtype=np.uint8)] * 4
    figures.draw_grid(tmp_path / "a.png", Films(images, [""] * 4, [False, False, True, False]), "", columns=4)
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    vermillion = np.abs(picture - (0x00, 0x5E, 0xD5)).sum(axis=2) < 12
    columns = np.flatnonzero(vermillion.any(axis=0)) / picture.shape[1]
    assert 0.48 < columns.min() < 0.53
    assert 0.7 < columns.max() < 0.77
    figures.draw_grid(tmp_path / "none.png", Films([], []), "No film")
    assert (tmp_path / "none.png").exists()


def test_the_heat_is_drawn_where_it_is(tmp_path):
    heat = np.zeros((40, 40))
    heat[:20] = 1
    figures.draw_heat_maps(tmp_path / "a.png", HeatMaps([np.full((40, 40), 128, dtype=np.uint8)], [heat], ["film"]), "")
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    height, width = picture.shape[:2]
    quarters = {
        (row, column): np.ptp(picture[int(height * row), int(width * column)])
        for row in (0.2, 0.7)
        for column in (0.25, 0.75)
    }
    assert quarters[0.2, 0.75] > 40  # coloured: the upper half of the right-hand copy
    assert max(value for at, value in quarters.items() if at != (0.2, 0.75)) < 10
    assert abs(picture[int(height * 0.7), int(width * 0.75)] - 128).max() < 10  # where there is no heat, the film


def test_operating_points_stand_where_they_belong(drawings):
    plot, arguments, _ = drawings["roc"]
    ax = Figure().subplots()
    plot(ax, *arguments)
    marked = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert marked == [pytest.approx([0.2, 0.9])]  # specificity .8, sensitivity .9


def test_cells_stand_where_they_belong(drawings):
    plot, arguments, _ = drawings["confusion"]
    ax = Figure().subplots()
    plot(ax, *arguments)
    cells = {text.get_text(): (text.get_position()[0], round(text.get_position()[1])) for text in ax.texts}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["NORMAL", "PNEUMONIA"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["NORMAL", "PNEUMONIA"]
    assert [cells[count] for count in ("126", "42", "0", "1,380")] == [(0, 0), (1, 0), (0, 1), (1, 1)]  # tn fp fn tp
