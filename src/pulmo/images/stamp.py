"""A stamp of the code that decodes films, for what earlier runs decoded counts only while that is the same."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pulmo.films import names

_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm")


@cache
def decoding_stamp() -> str:
    """Twelve hex digits that follow from the modules of this package, what they ask of a name, and the versions of the
    libraries below them."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for file in (Path(names.__file__), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
