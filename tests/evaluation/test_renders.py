import numpy as np
import pytest

from pulmo.evaluation.probes.renderings import render_films, swap_spectra
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.decisions import choose_operating_point


@pytest.fixture(scope="module")
def films():
    """Twelve films: a smooth chest each; those of PNEUMONIA (label 1) with fine texture, those of NORMAL without."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:224, :224] / 224
    labels = np.arange(12) % 2
    smooth = 60 + 100 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.1)
    noise = rng.normal(0, 12, (12, 224, 224)) * labels[:, None, None] + rng.normal(0, 1, (12, 224, 224))
    return (smooth + noise).clip(0, 255).astype(np.uint8), labels


def fine_power(images):
    power = np.abs(np.fft.rfft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
    return np.log(power[:, 84:140, 56:].mean(axis=(1, 2)))


def test_every_rendering_changes_every_film_but_the_first(films):
    images, labels = films
    rendered = dict(render_films(images, labels, 0))
    assert len(rendered) == 10
    assert (rendered.pop("as it is") == images).all()
    for name, changed in rendered.items():
        assert changed.shape == images.shape, name
        assert changed.dtype == np.uint8, name
        assert (changed != images).any(axis=(1, 2)).all(), name


def test_renderings_follow_from_the_seed(films):
    first, again, other = (dict(render_films(*films, seed)) for seed in (1, 1, 2))
    for name in first:
        assert (first[name] == again[name]).all()
    assert (first["noisy"] != other["noisy"]).any()


def test_swapped_spectra_carry_the_texture_over(films):
    images, labels = films
    swapped = swap_spectra(images, labels, np.random.default_rng(0))
    before, after = fine_power(images), fine_power(swapped)
    assert before[labels == 1].min() > before[labels == 0].max() + 2
    assert after[labels == 0].mean() > after[labels == 1].mean() + 2
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, swapped, strict=True)]
    assert min(correlation) > 0.9, "the anatomy stays"


def test_one_class_has_no_other_spectrum(films):
    images, _ = films
    assert len(list(render_films(images, np.ones(12, dtype=int), 0))) == 9


def test_the_threshold_is_best_on_the_mean_of_the_renderings():
    rng = np.random.default_rng(1)
    label = np.tile([0, 1], 40)
    towards_pneumonia = (0.0, 0.9, 1.2)  # how far a rendering moves NORMAL films
    clean = label * 2 - 1 + rng.normal(0, 0.5, 80)
    scores = np.concatenate([clean + shift * (1 - label) for shift in towards_pneumonia])
    labels, patients = np.tile(label, 3), np.tile(np.arange(80).astype(str), 3)
    point = choose_operating_point(labels, scores, patients, "youden_rendered", resampling=Resampling(100))
    renderings = scores.reshape(3, 80)

    def mean_index(threshold):
        return np.mean([(s[label == 1] >= threshold).mean() + (s[label == 0] < threshold).mean() for s in renderings])

    best = max(mean_index(threshold) for threshold in np.unique(scores))
    assert mean_index(point.threshold) == pytest.approx(best)
    plain = choose_operating_point(label, clean, patients[:80], "youden", resampling=Resampling(100))
    assert point.threshold > plain.threshold
    assert point.low <= point.threshold <= point.high
