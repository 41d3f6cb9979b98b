"""How fast films of about 1300 x 900 become 224 x 224 gray: this project against plain Pillow, and over the cores.

Run from the project's root: `python bench/preprocess.py`. It needs the real originals beside the project.
"""

import contextlib
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pulmo.base.files import sha256_file
from pulmo.base.process import usable_cores
from pulmo.dataset.preprocessing import process_films
from pulmo.images.decode import read_image
from pulmo.images.film_store import FilmStore

ORIGINALS = Path(__file__).resolve().parents[1].parent / "shared" / "xrays" / "originals.zip"
SIZE = 224
ROUNDS = 5
REPEATS = 8  # the 140 films are decoded so often when the cores are compared


def plain(film: bytes) -> np.ndarray:
    """What everyone writes."""
    return np.asarray(Image.open(io.BytesIO(film)).convert("L").resize((SIZE, SIZE)))


def bilinear(film: bytes) -> np.ndarray:
    """The same with Pillow's cheaper antialiased filter, to which the result is compared."""
    return np.asarray(Image.open(io.BytesIO(film)).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def ours(film: bytes) -> np.ndarray:
    """What preprocess and predict do."""
    return read_image(film, SIZE, "squash")


def main() -> None:
    """Print ratios measured in this run."""
    if not ORIGINALS.exists():
        print("skipped: needs the original X-rays, ../shared/xrays/originals.zip")
        return
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(ORIGINALS) as archive:
            archive.extractall(Path(scratch, "raw"))
        files = sorted(Path(scratch, "raw").rglob("*.jpeg"))
        compare_methods([file.read_bytes() for file in files])
        compare_cores(Path(scratch), [str(file.relative_to(Path(scratch, "raw"))) for file in files])


def compare_methods(films: list[bytes]) -> None:
    """CPU seconds, because they do not depend on what else the machine does; all three use one thread."""
    methods: list[Callable[[bytes], np.ndarray]] = [plain, bilinear, ours]
    seconds: dict[Callable[[bytes], np.ndarray], list[float]] = {method: [] for method in methods}
    for _ in range(ROUNDS):
        for method in methods:
            start = time.process_time()
            for film in films:
                method(film)
            seconds[method].append(time.process_time() - start)
    typical = {method: statistics.median(values) for method, values in seconds.items()}
    difference = [np.abs(ours(film).astype(int) - bilinear(film)).mean() for film in films]
    print(
        f"one core, {len(films)} films, median of {ROUNDS} rounds of CPU time: {len(films) / typical[ours]:.0f} films/s"
    )
    print(f"  times Image.open().convert('L').resize():           {typical[plain] / typical[ours]:.2f}  (wanted: 1.45)")
    print(f"  times Image.open().convert('L').resize(.., BILINEAR): {typical[bilinear] / typical[ours]:.2f}")
    print(
        f"  gray levels from the latter, mean {np.mean(difference):.2f}, worst film {max(difference):.2f}  (allowed: 1)"
    )


def compare_cores(scratch: Path, paths: list[str]) -> None:
    """Wall-clock seconds of the whole of process_films, starting the processes included; no film comes from a store."""
    files = [scratch / "raw" / path for path in paths]
    films = pd.DataFrame({"path": paths, "sha256": map(sha256_file, files), "bytes": [f.stat().st_size for f in files]})
    films = pd.concat([films] * REPEATS)
    counts = [1]
    while counts[-1] * 2 <= usable_cores():
        counts.append(counts[-1] * 2)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(3):
        for count in counts:
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                process_films(scratch / "raw", films, FilmStore(SIZE, "squash"), count, 0, scratch / "processed")
            seconds[count].append(time.perf_counter() - start)
    typical = {count: statistics.median(values) for count, values in seconds.items()}
    print(f"process_films, {len(paths) * REPEATS} films, median of 3 rounds of wall-clock time:")
    for count in counts:
        rate = len(paths) * REPEATS / typical[count]
        print(f"  {count} process(es): {rate:.0f} films/s, {typical[1] / typical[count]:.2f} times one process")


if __name__ == "__main__":
    main()
