import ast
import hashlib
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulmo.films.names import read_name
from pulmo.films.rows.table import Listed
from pulmo.sources import phantom
from pulmo.sources.phantom.anatomy import Chest
from pulmo.sources.phantom.drawing import Dice, curve, soften

# SHA-256 of 60 films of seed 7: whoever changes a drawing changes it too; another machine must not.
PINNED = "4d9583ae6df2581a1a85bb7a0f3173a272a16a3ac00737fba73e06dc5889222d"
EXACT = {
    *("abs", "arange", "array", "bincount", "clip", "concatenate", "empty", "floor", "frombuffer", "maximum"),
    *("minimum", "pad", "ravel", "searchsorted", "sqrt", "where", "zeros", "zeros_like"),
    *("float32", "int64", "intp", "ndarray", "random", "uint8"),
}


def digest(raw: Path, listed: list[Listed]) -> str:
    whole = hashlib.sha256()
    for film in listed:
        whole.update(film.path.encode() + b"\0" + (raw / film.path).read_bytes())
    return whole.hexdigest()


def film(subtype: str, severity: float, seed: int) -> np.ndarray:
    content = phantom.draw_film(Chest.draw(Dice(seed)), subtype, severity, Dice(seed, 1))
    return np.asarray(Image.open(io.BytesIO(content)), np.float64)


def change(subtype: str, severity: float, seed: int) -> np.ndarray:
    return np.abs(film(subtype, severity, seed) - film("normal", 0, seed))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    return raw, phantom.fetch(raw, films=60, seed=7)[0]


@pytest.fixture(scope="module")
def patients():
    return phantom.plan(720, 7)


def test_the_same_bytes_on_every_machine(drawn):
    assert digest(*drawn) == PINNED


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bytes_again_with_any_number_of_threads(drawn, tmp_path, workers):
    assert digest(tmp_path, phantom.fetch(tmp_path, 60, 7, workers)[0]) == digest(*drawn)


def test_another_seed_draws_other_films(drawn, tmp_path):
    assert digest(tmp_path, phantom.fetch(tmp_path, 60, 8)[0]) != digest(*drawn)


def test_nothing_whose_last_bits_depend_on_the_machine():
    for file in Path(phantom.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
                assert node.attr in EXACT, f"{file.name}, line {node.lineno}: is {node.attr} exact to the last bit?"
            assert not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.MatMult)


def test_lists_what_it_wrote(drawn):
    raw, listed = drawn
    assert [film.path for film in listed] == sorted(str(f.relative_to(raw).as_posix()) for f in raw.rglob("*.jpeg"))
    assert all(film.path.split("/")[:2] == [film.source_split, film.label] for film in listed)
    assert len({hashlib.sha256((raw / film.path).read_bytes()).digest() for film in listed}) == 60


@pytest.mark.parametrize("films", [60, 61, 720, 1999])
def test_plans_as_many_films_as_asked(films):
    assert sum(len(patient.films) for patient in phantom.plan(films, 3)) == films


def test_splits_and_classes_are_balanced_like_the_real_set(patients):
    paths = [path for patient in patients for path in patient.films]
    count = Counter(tuple(path.split("/")[:2]) for path in paths)
    assert count["val", "NORMAL"] == count["val", "PNEUMONIA"] == 8
    assert count["test", "NORMAL"] + count["test", "PNEUMONIA"] == 202
    assert count["test", "NORMAL"] / 202 == pytest.approx(0.375, abs=0.01)
    assert count["train", "NORMAL"] / (720 - 16 - 202) == pytest.approx(0.26, abs=0.01)
    assert sum("bacteria" in path for path in paths) / sum("virus" in path for path in paths) == pytest.approx(
        2, abs=0.1
    )


def test_names_tell_patient_and_subtype(patients):
    splits = defaultdict(set)
    for patient in patients:
        keys = {read_name(path) for path in patient.films}
        assert len(keys) == 1
        assert keys.pop()[1] == patient.subtype
        splits[read_name(patient.films[0])[0]] |= {path.split("/")[0] for path in patient.films}
    assert len(splits) == len(patients)
    assert all(len(where) == 1 for where in splits.values())


def test_names_have_the_traps_of_the_real_ones(patients):
    names = {Path(path).stem for patient in patients for path in patient.films}
    assert {len(patient.films) for patient in patients} == {1, 2, 3, 4}
    numbers = [{name.split("_")[0] for name in names if kind in name} for kind in ("bacteria", "virus")]
    assert numbers[0] & numbers[1], "the two kinds count separately, so that they share numbers"
    normals = {name.removeprefix("NORMAL2-") for name in names if "IM" in name}
    assert any(name.endswith("-0002") and name.count("-") == 2 for name in normals)
    assert any(name.endswith("-0001-0001") for name in normals)
    assert {name.startswith("NORMAL2") for name in names if "IM" in name} == {True, False}


def test_films_vary_in_size_and_quality(drawn):
    raw, listed = drawn
    tables = set()
    for film in listed:
        with Image.open(raw / film.path) as image:
            assert image.format == "JPEG"
            assert image.mode == "L"
            assert 300 <= image.width <= 700
            assert 0.98 < image.width / image.height < 1.52
            tables.add(tuple(image.quantization[0]))
    assert len(tables) > 15


@pytest.mark.parametrize("subtype", ["bacterial", "viral"])
def test_illness_leaves_size_marker_and_all_outside_the_lungs_alone(subtype):
    for seed in (1, 2, 3):
        difference = change(subtype, 1, seed)
        assert not difference[:16].any()
        assert difference.max() > 20


@pytest.mark.parametrize("subtype", ["bacterial", "viral"])
def test_illness_is_graded(subtype):
    for seed in (1, 2, 3):
        slight, middling, plain = (change(subtype, severity, seed).mean() for severity in (0, 0.5, 1))
        assert 0 < slight < middling < plain


def test_bacteria_fill_one_lung_and_viruses_haze_both():
    for seed in (1, 2, 3):
        for subtype, low, high in (("bacterial", 0, 0.15), ("viral", 0.25, 0.5)):
            columns = change(subtype, 1, seed).sum(0)
            lesser = min(columns[: len(columns) // 2].sum(), columns[len(columns) // 2 :].sum()) / columns.sum()
            assert low <= lesser <= high, (seed, subtype)


def test_lungs_are_dark_between_a_bright_spine_and_bright_flanks():
    for seed in range(6):
        picture = film("normal", 0, seed)
        rows, columns = picture.shape
        band = picture[int(rows * 0.35) : int(rows * 0.5)]
        spine = band[:, int(columns * 0.46) : int(columns * 0.54)].mean()
        assert all(band[:, int(columns * at) : int(columns * (at + 0.08))].mean() < spine - 30 for at in (0.24, 0.68))


def test_curve_passes_through_its_knots():
    at = np.array([-5, 0, 1, 3, 9], np.float32)
    np.testing.assert_allclose(curve(at, (0, 2), (1, -1), (3, 4)), [2, 2, -1, 4, 4])


def test_soften_spreads_but_keeps_the_ink():
    dot = np.zeros((9, 9), np.float32)
    dot[4, 4] = 1
    soft = soften(dot, 2)
    assert soft.sum() == 1
    assert soft[4, 4] == (6 / 16) ** 2
