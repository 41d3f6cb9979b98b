"""One film is answered alike in every transfer syntax that a codec here writes, and as a PNG."""

import io
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from hospital_films import HEADER, hospital_film
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from small_package import make_package

from pulmo import Predictor

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEG2000, JPEGLSLossless, JPEGLSNearLossless)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return Predictor.load_folder(make_package(tmp_path_factory.mktemp("model") / "package"))


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Smooth, as a film is, and without any symmetry."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 6), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((160, 200), Image.Resampling.BICUBIC))


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def in_baseline_jpeg(pixels: np.ndarray) -> bytes:
    jpeg, file = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    dataset = pydicom.dcmread(io.BytesIO(hospital_film(pixels)))
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = JPEGBaseline8Bit, encapsulate([jpeg.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(file)
    return file.getvalue()


def in_lossless_jpeg(pixels: np.ndarray, folder: Path) -> bytes:
    (folder / "plain.dcm").write_bytes(hospital_film(pixels, **dict.fromkeys(HEADER) | {"Modality": "CR"}))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(JPEGLosslessSV1)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "small.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "small.dcm").read_bytes()


def test_one_film_has_one_probability(predictor: Predictor, film: np.ndarray, tmp_path: Path) -> None:
    contents = {UID(syntax).name: hospital_film(film, syntax) for syntax in (*PLAIN, *COMPRESSED)}
    contents |= {"JPEG baseline": in_baseline_jpeg(film), "JPEG lossless": in_lossless_jpeg(film, tmp_path)}
    expected = predictor.predict(as_png(film)).prob_pneumonia
    found = {name: predictor.predict(content).prob_pneumonia for name, content in contents.items()}
    assert len(found) == 10
    assert found == pytest.approx(dict.fromkeys(found, expected), abs=0.01)
    other = predictor.predict(as_png(np.ascontiguousarray(film[::-1]))).prob_pneumonia
    assert abs(other - expected) > 0.01, "the model tells films apart that differ"
