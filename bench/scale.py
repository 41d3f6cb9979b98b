"""Seconds and memory of all stages for ever more films: download (in place), split, preprocess, train and evaluate.

Run from the project's root: `python bench/scale.py`, or `make bench-scale FILMS=100000` for 1,000, 10,000 and 100,000.
The films are cut out of sixty drawn ones, each with pixels of its own. SqueezeNet sees them in 32 pixels, for an epoch:
with a larger network or film a step takes longer, and memory that does not depend on the number of films. About two
minutes for 1,000 on two cores. With `--plot FILE.svg` the figures are drawn too, anew after each line of the table.
"""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import psutil

from pulmo.base.yaml import read_yaml
from pulmo.sources import phantom

ROOT = Path(__file__).resolve().parents[1]
SIZE, SMALL = 224, 32  # pixels, the second for train and evaluate
STAGES = ("download", "split", "preprocess", "train", "evaluate")
CUT = 40  # pixels: the range of the corner from which a film is cut
LIMIT = 2000  # MB that no stage may exceed
PAUSE = 0.1  # s between two looks at the memory


class Measured(NamedTuple):
    """A stage that ran to its end."""

    films: int
    stage: str
    seconds: float
    cpu: float  # seconds of all processes together, which do not depend on what else the machine does
    peak: float  # MB, of all processes together


def main() -> None:
    """Print a table, a line a stage and number of films."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="file for the picture")
    most, plot = int(os.environ.get("FILMS") or 1000), parser.parse_args().plot
    measured: list[Measured] = []
    print("| films | stage | seconds | CPU seconds | CPU ms a film | peak memory, MB |\n|---|---|---|---|---|---|")
    for films in [count for count in (1000, 10_000, 100_000) if count < most] + [most]:
        with tempfile.TemporaryDirectory() as scratch:
            for done in measure(Path(scratch), films):
                measured.append(done)
                if plot:
                    draw(measured, plot)
    print(f"highest peak: {max(each.peak for each in measured):,.0f} MB (allowed: {LIMIT:,})")


def measure(scratch: Path, films: int) -> Iterator[Measured]:
    """All stages on new films. Preprocess runs again with nothing decoded before, after a kill, and after download has
    seen one more film in a hundred."""
    began = time.perf_counter()
    cut_films(scratch / "films", range(films))
    print(f"{films:,} films were drawn in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    write_params(scratch, SIZE)
    for stage in STAGES:
        if stage == "train":
            shrink_films(scratch / "data/processed/images.npy")
            write_params(scratch, SMALL)
        yield run_stage(scratch, films, stage)
    write_params(scratch, SIZE)
    remove_store(scratch)
    anew = run_stage(scratch, films, "preprocess", "nothing decoded before")
    yield anew
    remove_store(scratch)
    run_stage(scratch, films, "preprocess", kill_after=anew.seconds / 2)
    yield run_stage(scratch, films, "preprocess", "the rest after a kill half-way")
    cut_films(scratch / "films", range(films, films + films // 100))
    for stage in ("download", "preprocess"):
        yield run_stage(scratch, films, stage, "1% more films")


def cut_films(folder: Path, numbers: range) -> None:
    """Write the films of these numbers, 15% of them into the test split, in the names of the published films."""
    with tempfile.TemporaryDirectory() as drawn:
        paths = [film.path for film in phantom.fetch(Path(drawn), 60, 1)[0]]
        bases = [cv2.imread(str(Path(drawn, path)), cv2.IMREAD_GRAYSCALE) for path in paths]
    for split in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            (folder / split / label).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        random = np.random.default_rng(number)
        place = int(random.integers(len(bases)))
        top, left = random.integers(CUT, size=2)
        film = cv2.convertScaleAbs(bases[place][top : top - CUT, left : left - CUT], alpha=random.uniform(0.8, 1))
        for digit in range(20):  # the number in its corner, so that no two films are the same
            film[:4, 4 * digit : 4 * digit + 4] = 255 * (number >> digit & 1)
        label = "PNEUMONIA" if "PNEUMONIA" in paths[place] else "NORMAL"
        patient = number // 2
        name = f"person{patient}_virus_{number}" if label == "PNEUMONIA" else f"IM-{patient:04}-{number:04}"
        split = "test" if patient % 7 == 0 else "train"
        cv2.imwrite(str(folder / split / label / f"{name}.jpeg"), film)


def write_params(scratch: Path, size: int) -> None:
    """params.yaml of the project for the films in `scratch`, of so many pixels."""
    from ruamel.yaml import YAML

    params = read_yaml(ROOT / "params.yaml")
    params["data"] |= {"source": "folder"}
    params["data"]["folder"] |= {"path": str(scratch / "films"), "in_place": True}
    params["preprocess"] |= {"size": size, "store_gb": 50, "workers": 2}
    params["train"] |= {"arch": "squeezenet1_1", "epochs": 1, "batch_size": 256}
    with (scratch / "params.yaml").open("w") as file:
        YAML().dump(params, file)


def shrink_films(file: Path) -> None:
    """Replace the films of images.npy by the same ones in fewer pixels."""
    large = np.load(file, mmap_mode="r")
    small = [cv2.resize(film, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for film in large]
    file.unlink()
    np.save(file, np.stack(small))


def remove_store(scratch: Path) -> None:
    """Have preprocess decode every film anew."""
    for block in (scratch / ".cache/films").glob(f"{SIZE}-*/*.block"):
        block.unlink()


def run_stage(scratch: Path, films: int, stage: str, what: str = "", kill_after: float = 0) -> Measured:
    """Run a stage in a process of its own, to its end or so many seconds."""
    if stage == "preprocess":  # as DVC does
        shutil.rmtree(scratch / "data/processed", ignore_errors=True)
    environment = os.environ | {"DVC_ROOT": str(scratch), "PYTHONPATH": str(ROOT / "src")}
    began, before, peak = time.perf_counter(), cpu_seconds(), 0.0
    command = [sys.executable, str(ROOT / "stages" / f"{stage}.py")]
    process = psutil.Popen(command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(PAUSE)
        if kill_after and time.perf_counter() - began > kill_after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
    if process.returncode and not kill_after:
        sys.exit(process.stderr.read().decode())
    name = f"{stage}, {what}" if what else stage
    done = Measured(films, name, time.perf_counter() - began, cpu_seconds() - before, peak)
    if not kill_after:
        times = f"{done.seconds:.1f} | {done.cpu:.1f} | {1000 * done.cpu / films:.2f}"
        print(f"| {films:,} | {name} | {times} | {peak:,.0f} |", flush=True)
    return done


def cpu_seconds() -> float:
    """Seconds of processors that ended children and theirs have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(process: psutil.Process) -> float:
    """MB of a process and those that it started; the libraries that they share count for each."""
    used = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        used, own = process.memory_info().rss, process.cmdline()
        for child in process.children(recursive=True):
            if child.cmdline() != own:  # else it is about to become another program, and has no memory of its own yet
                used += child.memory_info().rss
    return used / 1e6


def draw(measured: list[Measured], file: Path) -> None:
    """CPU seconds and memory by the number of films, a line a stage."""
    from pulmo.reporting.canvas import DOTTED, LINES, ORANGE, drawing

    with drawing(file, 9, 3.6, columns=2) as (seconds, peaks):
        for (colour, style), stage in zip((*LINES, (ORANGE, DOTTED)), STAGES, strict=True):
            of_stage = [each for each in measured if each.stage == stage]
            films = [each.films for each in of_stage]
            for ax, values in (
                (seconds, [each.cpu for each in of_stage]),
                (peaks, [each.peak for each in of_stage]),
            ):
                ax.plot(films, values, color=colour, linestyle=style, marker="o", label=stage)
        seconds.set(xscale="log", yscale="log", xlabel="films", title="CPU seconds")
        peaks.set(xscale="log", xlabel="films", title="Peak memory, MB", ylim=(0, LIMIT))
        for axis in (seconds.xaxis, seconds.yaxis, peaks.xaxis):
            axis.set_major_formatter("{x:,g}")
        seconds.legend()


if __name__ == "__main__":
    main()
