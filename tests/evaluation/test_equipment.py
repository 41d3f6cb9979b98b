import importlib

import numpy as np
import pandas as pd
import pytest
from small_project import ROOT

from pulmo.evaluation.probes.equipment import score_equipment
from pulmo.evaluation.probes.equipment_films import FIRST, Change, deliver_films
from pulmo.package.harmony import Harmony
from pulmo.package.info import PackageInfo

SIZE = 64


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    smooth = 60 + 120 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.1)
    return (smooth + rng.normal(0, 8, (6, SIZE, SIZE))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def second(monkeypatch) -> dict[str, Change]:
    """The changes that the script alone makes."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("equipment").SECOND


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("later", [False, True])
def test_a_change_alters_every_film_and_leaves_its_anatomy(place, later, films, second):
    change = list((second if later else FIRST).values())[place]
    changed = deliver_films(films, change, 1)
    assert (changed.shape, changed.dtype) == (films.shape, np.uint8)
    assert (changed != films).any(axis=(1, 2)).all()
    middle = slice(SIZE // 4, -SIZE // 4)
    for before, after in zip(films[:, middle, middle], changed[:, middle, middle], strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.7
    np.testing.assert_array_equal(deliver_films(films, change, 1), changed)


def test_the_two_sets_have_no_change_in_common(second):
    assert len(FIRST) == len(second) == 7
    assert not set(FIRST) & set(second)
    assert not set(FIRST.values()) & set(second.values())


class Darkness:
    """Scores by how dark a film is, once it is received."""

    def __init__(self, harmony: Harmony) -> None:
        self.info = PackageInfo(arch="a", head=1, size=SIZE, fit="pad", harmony=harmony)

    def score(self, images: np.ndarray) -> np.ndarray:
        return -images.mean(axis=(1, 2))


def test_films_are_received_as_any_film_is(films):
    val = pd.DataFrame({"row": range(6), "target": [0, 1] * 3, "patient": list("abcdef")})
    plain, leveled = (
        score_equipment(Darkness(harmony), val, films, {"dark": lambda film, dice: film * 0.6}, 6, 0)
        for harmony in (Harmony(), Harmony(gray=tuple(np.linspace(60, 180, 65))))
    )
    assert plain.rendering.tolist() == ["dark"] * 6
    assert plain.label.tolist() == [0, 1] * 3
    assert plain.logit.max() < -40
    assert leveled.logit.mean() < plain.logit.mean() - 20, "brought to brighter levels"
    assert np.ptp(leveled.logit) < 2
