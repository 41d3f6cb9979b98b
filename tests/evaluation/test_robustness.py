import numpy as np
import pytest

from pulmo.evaluation.probes.image_changes import CHANGES, POLARITY, change_films
from pulmo.evaluation.probes.probe import draw_rows
from pulmo.evaluation.probes.robustness import measure_robustness
from pulmo.metrics.bootstrap import Resampling

SIZE = 48


@pytest.fixture(scope="module")
def films():
    """Smooth bright spots on a gradient: 16 films that every change alters."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    spots = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in rng.uniform(0.3, 0.7, (16, 2))]
    texture = rng.normal(0, 6, (16, SIZE, SIZE))
    return np.clip(60 + 60 * x + 90 * np.stack(spots) + texture, 0, 255).astype(np.uint8)


def brightness(images):
    return images.mean(axis=(1, 2))


def is_bright(scores):
    return scores >= 127.5


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not POLARITY], ids=lambda change: change.name)
def test_every_change_grows_with_its_severity(change, films):
    changed = [change_films(films, change, strength, 5) for strength in change.strengths]
    for images in changed:
        assert images.shape == films.shape
        assert images.dtype == np.uint8
    distance = [np.abs(images.astype(float) - films).mean() for images in changed]
    assert distance[0] > 0.1
    assert (np.diff(distance) > 0).all()
    assert (change_films(films, change, change.strengths[2], 5) == changed[2]).all()


def test_films_turn_and_stretch_both_ways_and_keep_their_way():
    left = np.zeros((40, SIZE, SIZE), np.uint8)
    left[:, 5:15, 20:28] = 200  # above the centre: turning moves it sideways
    change = next(change for change in CHANGES if change.name == "rotation")
    sides = []
    for strength in change.strengths:
        turned = change_films(left, change, strength, 1)
        sides.append(turned[:, :, :24].sum(axis=(1, 2)) > turned[:, :, 24:].sum(axis=(1, 2)))
    assert 5 < sides[0].sum() < 35
    assert all((side == sides[0]).all() for side in sides)


def test_polarity_flips_the_share_of_films_that_is_inverted(films):
    label = (brightness(films) > np.median(brightness(films))).astype(int)
    report = measure_robustness(brightness, is_bright, films, label, np.arange(16), 16, Resampling(50))
    polarity = next(row for row in report.changes if row.name == "polarity")
    inverted = 255 - brightness(films)
    flips = (inverted >= 127.5) != (brightness(films) >= 127.5)
    last = polarity.severities[-1]
    assert last.flipped.value == pytest.approx(flips.mean())
    assert last.to_pneumonia + last.to_normal == flips.sum()
    assert [row.level for row in polarity.severities] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert last.auroc.value == pytest.approx(0)
    assert report.worst == "polarity"
    assert report.clean["auroc"].value == pytest.approx(1)


def test_no_film_is_predicted_more_often_than_needed(films):
    seen = []

    def predict(images):
        seen.append(len(images))
        return brightness(images)

    label = np.arange(16) % 2
    report = measure_robustness(predict, is_bright, films, label, np.arange(16), 8, Resampling(50))
    assert seen == [8] * (1 + 9 * 5 + 1)
    assert (report.films, report.of) == (8, 16)
    assert report.clean["sensitivity"].films == 4


def test_one_class_has_no_worst_change(films):
    report = measure_robustness(brightness, is_bright, films, np.ones(16), np.arange(16), 16, Resampling(50))
    assert report.worst is None
    assert report.clean["specificity"].value is None
    assert report.changes[0].severities[0].flipped.value is not None


def test_the_subset_keeps_the_balance_of_the_classes():
    label = np.array([1] * 75 + [0] * 25)
    rows = draw_rows(label, 40, 3)
    assert len(set(rows)) == 40
    assert label[rows].sum() == 30
    assert (rows == draw_rows(label, 40, 3)).all()
    assert (rows != draw_rows(label, 40, 4)).any()
    assert (draw_rows(label, 200, 3) == np.arange(100)).all()
    for rare in (np.arange(100) == 7, np.arange(100) != 7):
        rows = draw_rows(rare.astype(int), 20, 3)
        assert len(rows) == 20
        assert 7 in rows, "a class of one film is not lost"
