"""Fixtures that several test modules share."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real X-rays and weights; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "xrays" / "kermany224.zip").exists():
        pytest.skip("the real X-rays are not beside the project")
    return folder


@pytest.fixture(scope="session")
def originals(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 real films at their original size, unpacked as chest_xray/train/{NORMAL,PNEUMONIA}."""
    folder = tmp_path_factory.mktemp("originals")
    with zipfile.ZipFile(shared / "xrays" / "originals.zip") as archive:
        archive.extractall(folder)
    return folder
