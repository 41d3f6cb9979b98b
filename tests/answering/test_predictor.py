import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_package import make_package, require_bf16
from toy_dicom import make_dataset

import pulmo
from pulmo.answering.predictor import Predictor
from pulmo.base import process
from pulmo.base.errors import UserError
from pulmo.images.decode import read_image
from pulmo.images.film import ImageError
from pulmo.metrics.estimates import ValueInInterval
from pulmo.package.info import CARD
from pulmo.package.storage import ONNX

SIZE = 64


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package", tta_views=2)


@pytest.fixture(scope="module")
def predictor(package) -> Predictor:
    return Predictor.load(package)


@pytest.fixture(scope="module")
def gray() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)


@pytest.fixture
def film(tmp_path, gray) -> Path:
    Image.fromarray(gray).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_an_answer_says_all_that_is_known_of_its_decision(package, film):
    answer = pulmo.Predictor.load(str(package)).predict(film)
    network = Predictor.load(package).network
    logit = network.score(read_image(film, SIZE, "pad")[None])[0]
    probability = 1 / (1 + np.exp(-logit / 0.5))
    assert answer.prob_pneumonia == pytest.approx(probability, abs=1e-6)
    assert answer.label == ("PNEUMONIA" if probability >= 0.5 else "NORMAL")
    assert answer.threshold == 0.5
    assert answer.unsure == (0.45 < probability < 0.55)
    assert answer.sensitivity == answer.specificity == ValueInInterval(0.9, 0.8, 0.95)
    assert answer.not_a_chest_film is None
    assert (answer.model.name, answer.model.version) == (package.as_posix(), "abcabcabcabc")
    assert answer.model.sha256 == json.loads((package / CARD).read_text())["weights_sha256"]
    assert json.loads(json.dumps(answer.to_dict()))["sensitivity"]["low"] == 0.8


def test_a_film_within_the_band_is_left_to_a_person(predictor):
    decide = predictor._decider.answer
    assert [decide(logit).unsure for logit in (-3.0, -0.05, 0.05, 3.0)] == [False, True, True, False]
    assert [decide(logit).label for logit in (-0.05, 0.05)] == ["NORMAL", "PNEUMONIA"]


def test_a_film_may_come_in_any_form(predictor, film, gray):
    expected = predictor.predict(film)
    films = [str(film), film.read_bytes(), gray, make_dataset(gray)]
    assert predictor.predict(films) == [expected] * 4
    assert predictor.predict([]) == []
    assert predictor.predict(film.parent.glob(film.name)) == [expected]
    deep = predictor.predict(gray.astype(np.uint16) * 16)
    assert abs(deep.logit - expected.logit) < 0.1, "scaled to its range, which is nearly the same"


def test_text_is_a_path_and_what_is_no_film_is_named(predictor, film, tmp_path):
    with pytest.raises(OSError, match="no-such-film"):
        predictor.predict("no-such-film")
    with pytest.raises(ImageError, match=r"^film 2: not an image"):
        predictor.predict([film, b"no film"])
    (tmp_path / "notes.txt").write_text("no film")
    with pytest.raises(ImageError, match=r"notes\.txt: not an image"):
        predictor.predict([film, tmp_path / "notes.txt"])
    with pytest.raises(ImageError, match="an array of 2 x 2 x 3 uint8 is no film"):
        predictor.predict(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match="a film of type int is not read"):
        predictor.predict(3)


def test_a_package_that_cannot_answer_is_named(package, tmp_path):
    import shutil

    folder = shutil.copytree(package, tmp_path / "package")
    card = json.loads((folder / CARD).read_text())
    (folder / ONNX).write_bytes(b"x" * 99)
    with pytest.raises(UserError, match=r"model\.onnx is damaged or not the one"):
        Predictor.load(folder)
    (folder / ONNX).unlink()
    with pytest.raises(UserError, match=r"model\.onnx not found(.|\n)*dvc repro -f -s evaluate"):
        Predictor.load(folder)
    (folder / CARD).write_text(json.dumps(card | {"threshold": None, "temperature": None, "locked": {}}))
    with pytest.raises(UserError, match="no locked threshold"):
        Predictor.load(folder)


def test_an_answer_loads_nothing_heavy(package, film):
    code = (
        "import sys; from pulmo import Predictor; print(Predictor.load(sys.argv[1]).predict(sys.argv[2]).label);"
        "import pulmo.answering.served, pulmo.answering.champion;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, package, film], capture_output=True, text=True, check=True)
    label, loaded = done.stdout.splitlines()
    assert label in ("NORMAL", "PNEUMONIA")
    heavy = {"torch", "torchvision", "mlflow", "dvc", "pandas", "sklearn", "matplotlib", "cv2", "lightning"}
    assert not heavy & set(loaded.split())
    code = "import sys, pulmo; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "onnxruntime", *heavy} & set(done.stdout.split())


@pytest.mark.parametrize("logit", [np.nan, np.inf])
def test_a_network_whose_output_is_not_finite_gives_no_answer(predictor, film, monkeypatch, logit):
    monkeypatch.setattr(predictor.network, "_run", lambda names, films: [np.full(len(films), logit, np.float32)])
    with pytest.raises(UserError, match="output for 1 of 1 films is no finite number"):
        predictor.predict(film)


@pytest.mark.parametrize(
    ("processor", "slow"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512_bf16", True),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16", False),
        ("vendor_id : AuthenticAMD\nflags : avx512_bf16", False),
        (None, False),
    ],
)
def test_bf16_that_takes_longer_is_a_warning(package, tmp_path, monkeypatch, capsys, processor, slow):
    file = tmp_path / "cpuinfo"
    if processor:
        file.write_text(processor)
    monkeypatch.setattr(process, "_PROCESSOR", file)
    assert process.computes_bf16_slowly() == slow
    require_bf16()
    Predictor.load(package, bf16=True)
    assert ("takes longer for bf16" in capsys.readouterr().err) == slow
