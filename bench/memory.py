"""Training with and without the memory that a stage keeps (`pulmo.base.process.keep_memory`).

Run from the project's root: `python bench/memory.py`. About four minutes on two quiet cores.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from _films import describe, train_here, write_films
from train import SETTINGS

from pulmo.base.process import keep_memory

FILMS = 320
ROUNDS = 3


def main() -> None:
    """Print the ratio measured in this run; each training has a process of its own, for nothing undoes the change."""
    gains = []
    for turn in range(ROUNDS):
        given_back, kept = measure("give-back"), measure("keep")
        gains.append(kept / given_back)
        print(f"round {turn + 1}, images per second: memory given back {given_back:.1f}, kept {kept:.1f}")
    print(f"memory kept / given back: {describe(gains)}")


def measure(how: str) -> float:
    """Images per second of the second of two epochs in a new process."""
    run = [sys.executable, __file__, how]
    return float(subprocess.run(run, stdout=subprocess.PIPE, check=True, text=True).stdout)


def train_twice(how: str) -> None:
    """Print the rate of the second training, when the process has its memory together."""
    if how == "keep":
        keep_memory()
    with tempfile.TemporaryDirectory() as scratch:
        images, labels, _ = write_films(Path(scratch), FILMS)
    train_here(images, labels, SETTINGS)
    print(FILMS / train_here(images, labels, SETTINGS)[1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_twice(sys.argv[1])
    else:
        main()
