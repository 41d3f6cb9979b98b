"""The cost of an answer: `pulmo predict` from process start beside importing torch, and one film beside eager PyTorch.

Run from the project's root after `dvc repro`: `python bench/answers.py [PACKAGE FOLDER_OF_FILMS]`. About two minutes.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pulmo import Predictor
from pulmo.base import paths

ROUNDS = 5
FILMS = 202
CALLS = 100
PREDICT = [sys.executable, "-c", "from pulmo.cli import main; main()", "predict", "--csv", "--package"]


def main() -> None:
    """Print medians of rounds in which all are measured one after the other, and their ratios."""
    package, folder = (Path(text) for text in sys.argv[1:3]) if sys.argv[1:] else (paths.PACKAGE, paths.RAW / "test")
    films = sorted(str(path) for path in folder.rglob("*") if path.is_file())[:FILMS]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "one film": [*PREDICT, str(package), films[0]],
        f"{len(films)} films": [*PREDICT, str(package), *films],
    }
    for command in commands.values():
        run(command)  # compiles bytecode and fills the disk's cache
    rounds = [{name: run(command) for name, command in commands.items()} for _ in range(ROUNDS)]
    seconds = {name: statistics.median(turn[name][0] for turn in rounds) for name in commands}
    for name in commands:
        memory = statistics.median(turn[name][1] for turn in rounds)
        print(f"{name:12} {seconds[name]:5.2f} s  {memory:4.0f} MB")
    print(f"one film / importing torch: {seconds['one film'] / seconds['import torch']:.2f}")
    print(f"{len(films)} films / one: {seconds[f'{len(films)} films'] / seconds['one film']:.2f}")
    compare_runtimes(package, films[0])


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the most memory that it held, in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def compare_runtimes(package: Path, film: str) -> None:
    """Print the median time of one decoded film by the package's ONNX and by PyTorch, in turns."""
    import torch  # not before, because a process counts the memory of the one that started it as its own

    from pulmo.model.classifier import load_classifier
    from pulmo.model.scoring import logit_pneumonia, to_input

    predictor, classifier = Predictor.load(package), load_classifier(package)
    decoded = predictor.read(film)
    info, gray = classifier.info, torch.from_numpy(decoded.pixels[None])
    network = classifier.network.to(memory_format=torch.channels_last)

    def answer_eagerly() -> None:
        with torch.inference_mode():
            for _ in range(info.tta_views):
                logit_pneumonia(network(to_input(gray, info.mean, info.std))).item()

    ways: dict[str, Callable[[], object]] = {
        "ONNX": lambda: predictor.answer([decoded]),
        "eager PyTorch": answer_eagerly,
        "decode too": lambda: predictor.predict(film),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(CALLS + 10):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn >= 10:
                times[name].append(time.perf_counter() - began)
    middle = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    print(*(f"{name} {value:.1f} ms" for name, value in middle.items()), sep=", ")
    print(f"ONNX / eager PyTorch: {middle['ONNX'] / middle['eager PyTorch']:.2f}")


if __name__ == "__main__":
    main()
