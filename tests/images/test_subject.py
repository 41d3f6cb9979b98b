import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from toy_dicom import make_dataset

from pulmo.images.decode import decode_film, read_film

OWN = Path(pydicom.__file__).parent / "data/test_files"  # a few films come with pydicom itself


def film(size=(120, 90), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def as_file(image: Image.Image, form: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def as_dicom(**header: str) -> bytes:
    """A small film as DICOM with these attributes."""
    dataset, content = make_dataset(film(), **header), io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({}, ""),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, ""),
        ({"Modality": "CR", "BodyPartExamined": "Port Chest", "ViewPosition": "AP"}, ""),
        ({"Modality": "", "BodyPartExamined": "", "ViewPosition": ""}, ""),
        ({"Modality": "CT"}, "modality CT"),
        ({"Modality": "CR", "BodyPartExamined": "EXTREMITY"}, "body part EXTREMITY"),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "LL"}, "view LL, from the side"),
    ],
)
def test_a_header_tells_other_films_and_its_silence_tells_nothing(header, reason):
    said = read_film(as_dicom(**header), 64, "squash").not_chest
    assert reason in said if reason else said == ""


def test_a_header_cannot_garble_the_reason():
    said = decode_film(as_dicom(BodyPartExamined="LEG\x1b[31m"), None).not_chest
    assert said == "its DICOM header says body part LEG31M"


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_slices_are_no_films(name):
    assert "modality" in decode_film(OWN / name, None).not_chest


@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("JPEG", {"quality": 80}), ("JPEG", {"progressive": True}), ("WEBP", {})]
)
def test_colour_tells_a_photograph_and_equal_channels_do_not(form, options):
    smooth = np.linspace(0, 255, 200, dtype=np.uint8)
    gray = np.add.outer(smooth // 2, smooth // 2)
    photograph = np.stack([gray, gray[::-1], gray[:, ::-1]], axis=-1)
    assert decode_film(as_file(Image.fromarray(photograph), form, **options), 64).not_chest == "a picture in colour"
    assert decode_film(as_file(Image.fromarray(gray).convert("RGB"), form, **options), 64).not_chest == ""


def test_a_coloured_mark_makes_no_photograph():
    marked = Image.fromarray(film((200, 200))).convert("RGB")
    marked.paste((255, 0, 0), (0, 0, 40, 30))
    assert decode_film(as_file(marked, "PNG"), None).not_chest == ""


def test_icons_are_no_films():
    assert "too few" in decode_film(as_file(Image.fromarray(film((31, 90))), "PNG"), None).not_chest
    assert decode_film(as_file(Image.fromarray(film((32, 90))), "PNG"), None).not_chest == ""


@pytest.mark.parametrize(("name", "reason"), [("RG1_UNCR", ""), ("RG3_UNCR", "EXTREMITY"), ("US1_UNCR", "modality US")])
def test_films_of_pydicom_data(name, reason):
    store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    file = Path(next(iter(store.__path__))) / "data" / f"{name}.dcm"
    said = decode_film(file, None).not_chest
    assert reason in said if reason else said == ""
