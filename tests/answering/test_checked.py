"""bf16 answers where it cannot change a decision, and fp32 everywhere else."""

from pathlib import Path

import numpy as np
import pytest
from small_package import LOCKED, make_package, require_bf16

from pulmo import Predictor
from pulmo.answering.checked import Checked
from pulmo.images.film import FittedFilm
from pulmo.metrics.calibration import to_probability
from pulmo.package.familiarity import Familiarity
from pulmo.package.inference import BATCH, Network
from pulmo.package.storage import ONNX

EDGES = np.array([-1.0, 0.0, 1.0]), np.array([20.0])
CLEAR = [[5.0, 10.0], [-5.0, 30.0]]  # log-odds and distance, far from every edge


class Measured:
    """A measurement that is given beforehand, and counts the films that it was asked for."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows, self.films = np.array(rows), 0

    def __call__(self, asked: np.ndarray) -> np.ndarray:
        self.films += len(asked)
        return self.rows[asked[:, 0, 0]]


def ask(checked: Checked, places: list[int]) -> np.ndarray:
    return checked(np.array(places, np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2))


def test_clear_films_are_measured_in_bf16_after_the_first():
    quick, exact = Measured([[5.1, 10.2], [-5.1, 29.9]]), Measured(CLEAR)
    checked = Checked(quick, exact, EDGES)
    np.testing.assert_array_equal(ask(checked, [0, 1] * (BATCH // 2)), np.array(CLEAR * (BATCH // 2)))
    assert exact.films == BATCH
    np.testing.assert_array_equal(ask(checked, [0, 1]), quick.rows)
    assert exact.films == BATCH


@pytest.mark.parametrize("near", [[1.4, 10.0], [-1.4, 10.0], [5.0, 20.4], [5.0, 19.6], [5.0, np.nan]])
def test_a_film_near_a_decision_is_measured_in_fp32(near):
    truth = [[near[0] + 0.1, near[1] + 0.1]]
    quick, exact = Measured([*CLEAR, near]), Measured([*CLEAR, *truth])
    checked = Checked(quick, exact, EDGES)
    ask(checked, [0] * BATCH)
    np.testing.assert_array_equal(ask(checked, [1, 2]), [CLEAR[1], *truth])
    assert exact.films == BATCH + 1
    assert checked.trusted


@pytest.mark.parametrize("wrong", [[-5.0, 10.0], [0.9, 10.0], [5.0, 30.0], [5.0, 20.4], [np.nan, 10.0]])
def test_bf16_that_lies_apart_is_not_used_again(wrong, capsys):
    truth = [5.0, 10.0] if wrong != [5.0, 20.4] else [5.0, 19.8]
    quick, exact = Measured([wrong]), Measured([truth])
    checked = Checked(quick, exact, EDGES)
    np.testing.assert_array_equal(ask(checked, [0]), [truth])
    np.testing.assert_array_equal(ask(checked, [0] * 50), [truth] * 50)
    assert quick.films == 1
    assert "fp32 answers from now on" in capsys.readouterr().err


def test_far_from_every_edge_a_difference_is_no_matter():
    checked = Checked(Measured([[12.0, 50.0]]), Measured([[14.0, 70.0]]), EDGES)
    assert ask(checked, [0]).tolist() == [[14.0, 70.0]]
    assert checked.trusted


def draw(count: int) -> list[FittedFilm]:
    dice = np.random.default_rng(0)
    return [FittedFilm(dice.integers(0, 256, (64, 64), dtype=np.uint8) // dice.integers(1, 9)) for _ in range(count)]


def load(package: Path, bf16: bool) -> Predictor:
    return Predictor.load(package, threads=1, bf16=bf16)


def make_deciding(folder: Path, threshold: float, familiarity: Familiarity | None = None) -> Path:
    """A package whose answer changes around a probability."""
    point = LOCKED["operating_point"] | {"threshold": threshold}
    band = LOCKED["abstention"] | {"low": threshold - 0.01, "high": min(1.0, threshold + 0.01)}
    locked = LOCKED | {"operating_point": point, "abstention": band}
    return make_package(folder, familiarity, locked=locked, threshold=threshold)


def test_decisions_are_those_of_fp32(tmp_path):
    require_bf16()
    films = draw(60)
    network = Network((make_package(tmp_path / "plain") / ONNX).read_bytes())
    logits, stages = network.score_and_read(np.stack([film.pixels for film in films]))
    means, precisions = zip(*[(np.zeros(stage.shape[1]), np.eye(stage.shape[1])) for stage in stages], strict=True)
    limit = float(np.quantile(Familiarity(means, precisions, 0).measure(stages), 0.9))
    threshold = float(to_probability(np.median(logits), LOCKED["temperature"]["value"]))
    package = make_deciding(tmp_path / "package", threshold, Familiarity(means, precisions, limit))
    exact, quick = (load(package, bf16).answer(films, anyway=True) for bf16 in (False, True))
    for one, other in zip(exact, quick, strict=True):
        assert (one.label, one.unsure, one.unlike_training) == (other.label, other.unsure, other.unlike_training)
        assert one.logit == pytest.approx(other.logit, abs=0.25)
    assert {answer.label for answer in exact} == {"NORMAL", "PNEUMONIA"}
    assert 0 < sum(answer.unlike_training for answer in exact) < len(films)


def test_clear_films_of_a_network_come_from_bf16(tmp_path):
    require_bf16()
    package, films = make_deciding(tmp_path / "package", 1.0), draw(40)
    exact, quick = load(package, bf16=False), load(package, bf16=True)
    alike = [one.logit == other.logit for one, other in zip(exact.score(films), quick.score(films), strict=True)]
    assert all(alike[:BATCH])
    assert not any(alike[BATCH:])
    assert (exact.bf16, quick.bf16) == (False, True)
    quick._measure._quick = lambda films: np.full((len(films), 2), 50.0)
    quick._measure._unseen = BATCH
    assert quick.score(films) == exact.score(films)
    assert not quick.bf16, "what was given up is not said to answer"
