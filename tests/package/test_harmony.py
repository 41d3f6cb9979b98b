"""Films of other equipment look like those of train once they are brought to their acquisition."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from pulmo.base.files import write_csv
from pulmo.dataset.harmonising import harmonise_films, learn_harmony
from pulmo.package.harmony import Harmony, count_rings, measure_levels, measure_spectrum, read_harmony
from pulmo.package.info import PackageInfo

SIZE, FILMS = 96, 24


def draw_chests(count: int, seed: int) -> np.ndarray:
    """Float films with structures of every size, as power falls in real ones, around a bright middle."""
    rng = np.random.default_rng(seed)
    cycles = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) * SIZE
    noise = np.fft.rfft2(rng.standard_normal((count, SIZE, SIZE))) / np.maximum(cycles, 1) ** 1.2
    texture = np.fft.irfft2(noise, s=(SIZE, SIZE))
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    return 120 + 60 * np.exp(-(x**2) / 0.02 - y**2 / 0.1) + 18 * texture / texture.std()


def to_gray(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return to_gray(draw_chests(FILMS, 1))


@pytest.fixture(scope="module")
def foreign() -> np.ndarray:
    """Films of the same kind by other software: another gray table, and blurred."""
    blurred = gaussian_filter(draw_chests(FILMS, 2), (0, 0.35, 0.35))
    return to_gray(255 * (blurred / 255).clip(0, 1) ** 0.6)


def distances(films: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """From the mean train film, in gray levels and in the logarithm of power."""
    measures = {"gray": measure_levels, "spectrum": measure_spectrum}
    means = {
        name: [np.mean([measure(film) for film in each], axis=0) for each in (films, train)]
        for name, measure in measures.items()
    }
    return {name: float(np.abs(mine - theirs)[2:].mean()) for name, (mine, theirs) in means.items()}


@pytest.mark.parametrize("mode", ["gray", "spectrum", "both"])
def test_foreign_films_come_near_the_train_films_in_what_is_asked_for(mode, train, foreign):
    harmony = learn_harmony(train, range(FILMS), mode)
    before, after = distances(foreign, train), distances(harmony.apply(foreign), train)
    for name in ("gray", "spectrum") if mode == "both" else (mode,):
        assert after[name] < before[name] / 4, name
    assert np.corrcoef(harmony.apply(foreign).ravel(), foreign.ravel())[0, 1] > 0.9, "the anatomy stays"


@pytest.mark.parametrize("mode", ["gray", "spectrum", "both"])
def test_a_film_harmonised_twice_stays_nearly_the_same(mode, train, foreign):
    harmony = learn_harmony(train, range(FILMS), mode)
    once = harmony.apply(foreign)
    first, second = (np.abs(a.astype(int) - b).mean() for a, b in ((once, foreign), (harmony.apply(once), once)))
    assert second < min(1.5, first / 4)


def test_noise_is_not_blown_up(train):
    harmony = learn_harmony(train, range(FILMS), "both")
    noise = to_gray(90 + np.random.default_rng(3).standard_normal((1, SIZE, SIZE)))
    assert harmony.apply(noise).std() < 10 * noise.std() < 2 * train.std()


def test_none_leaves_every_pixel_and_one_film_comes_out_as_among_others(train, foreign):
    assert learn_harmony(train, [], "none") == Harmony()
    assert Harmony().apply(foreign) is foreign
    harmony = learn_harmony(train, range(FILMS), "both")
    np.testing.assert_array_equal(harmony.apply(foreign[5]), harmony.apply(foreign)[5])


def test_train_alone_decides_and_the_array_holds_what_answers_will_see(train, foreign, tmp_path):
    paths = [f"film{number}" for number in range(2 * FILMS)]
    written = []
    for name, others in (("one", foreign), ("two", foreign[:, ::-1] // 2)):
        folder, films = tmp_path / name, np.concatenate([train, others])
        array, index, out = folder / "images.npy", folder / "index.csv", folder / "harmony.json"
        folder.mkdir()
        np.save(array, films)
        write_csv(index, pd.DataFrame({"row": range(2 * FILMS), "path": paths}))
        harmonise_films(array, index, set(paths[:FILMS]), "both", out)
        harmony = PackageInfo(arch="a", head=1, size=SIZE, fit="pad", harmony=read_harmony(out)).harmony
        np.testing.assert_array_equal(np.load(array), harmony.apply(films))
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_a_spectrum_of_another_size_is_refused():
    with pytest.raises(ValueError, match="another size"):
        PackageInfo(arch="a", head=1, size=64, fit="pad", harmony=Harmony(spectrum=(1.0,) * count_rings(SIZE)))
