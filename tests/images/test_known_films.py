"""Films that were not drawn for these tests: real radiographs of pydicom-data, files of pydicom, cases of others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from pulmo.images.decode import decode_film, decode_gray
from pulmo.images.film import ImageError


def test_chest_film_in_monochrome1_shows_dark_lungs() -> None:
    files = [get_testdata_file(f"RG1_{kind}.dcm", download=False) for kind in ("UNCR", "J2KR")]
    if None in files:
        pytest.skip("the radiographs of pydicom-data are not installed")
    film, compressed = (decode_gray(Path(str(file))) for file in files)
    np.testing.assert_array_equal(film, compressed)
    stored = pydicom.dcmread(str(files[0])).pixel_array
    assert np.corrcoef(stored[::8, ::8].ravel(), film[::8, ::8].ravel())[0, 1] < -0.9
    height, width = film.shape
    spine = film[height // 3 : height // 2, width * 48 // 100 : width * 52 // 100].mean()
    lungs = film[height // 3 : height // 2, width * 25 // 100 : width * 35 // 100].mean()
    assert lungs < spine - 40


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_jpeg_extended_of_12_bits_is_read(name: str) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    film = decode_film(file.read_bytes(), None)
    assert (film.width, film.height) == (256, 1024)
    assert len(np.unique(np.asarray(film.image))) > 100


@pytest.fixture(scope="module")
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(shared / "cases" / "make_cases.py"), str(out)], check=True)
    return out


def difference(one: Path, other: Path) -> int:
    return int(np.abs(decode_gray(one).astype(int) - decode_gray(other)).max())


def test_reported_lookup_tables_show_one_film(cases: Path) -> None:
    folder = cases / "luts"
    for kind, others in (("voi", ("8bit", "8bit_packed", "first_is_minus_1024")), ("modality", ("8bit", "12bit"))):
        for other in others:
            assert difference(folder / f"{kind}_{other}.dcm", folder / f"{kind}_16bit.dcm") <= 1


def test_reported_colour_keeps_its_depth(cases: Path) -> None:
    for name in ("rgb48", "la32"):
        assert difference(cases / "deep-colour" / f"{name}.png", cases / "deep-colour" / "gray16.png") == 0


@pytest.mark.parametrize("folder", ["no-picture", "unusable-display", "bare-dicom"])
def test_reported_films_are_shown(cases: Path, folder: str) -> None:
    files = sorted((cases / folder).glob("*.dcm"))
    assert len(files) >= 3
    for file in files:
        film = decode_film(file.read_bytes(), None)
        gray = np.asarray(film.image)
        assert (gray.min(), gray.max()) == (0, 255) or file.name == "voi_item_empty.dcm"
        assert len(np.unique(gray)) >= 48
        assert bool(film.note) == (folder != "bare-dicom" and file.name != "six_bits_of_eight.dcm"), file.name


def test_reported_black_film_is_refused(cases: Path) -> None:
    with pytest.raises(ImageError, match="carries no picture"):
        decode_gray(cases / "no-picture" / "black.png")
