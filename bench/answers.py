"""The cost of an answer: `pulmo predict` from process start beside importing torch, one film beside eager PyTorch, and
`pulmo serve`, in fp32 and in bf16, beside PyTorch in a FastAPI handler. Without a processor that computes in bf16 that
part is left out.

Run from the project's root after `dvc repro`: `python bench/answers.py`. About five minutes. `--long 10000` asks the
server about so many films more, and shows how its memory grows.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
from _clients import ask, find_port, read_films, running

from pulmo import Predictor
from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.package.inference import Network
from pulmo.package.storage import ONNX

ROUNDS = 5
FILMS = 202
ONES, TURNS = 20, 5  # films that are asked about one by one; those of one way follow each other, as in a program
CLIENTS = {1: 200, 8: 400, 32: 600}  # at once: films of a round
LOADS = 3  # rounds of them
PREDICT = [sys.executable, "-c", "from pulmo.cli import main; main()", "predict", "--csv", "--anyway", "--package"]


def main() -> None:
    """Print what each of them costs, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=paths.PACKAGE)
    parser.add_argument("--films", type=Path, default=paths.RAW / "test")
    parser.add_argument("--long", type=int, default=0, help="films that the server is asked about more")
    options = parser.parse_args()
    whole = sorted(str(path) for path in options.films.rglob("*") if path.is_file())
    films = whole[:FILMS]
    compare_commands(options.package, films)  # first, because a process counts the memory of the one that started it
    precisions = list_precisions(options.package)
    compare_servers(options.package, read_films(films), precisions, options.long)
    if "bf16" in precisions:
        compare_precisions(options.package, whole)
    compare_runtimes(options.package, films[:: max(1, len(films) // ONES)][:ONES], precisions)


def list_precisions(package: Path) -> list[str]:
    """fp32, and bf16 where it can be computed in."""
    try:
        Predictor.load(package, bf16=True)
    except UserError as error:
        print(f"bf16: left out, {error.message}")
        return ["fp32"]
    return ["fp32", "bf16"]


def compare_commands(package: Path, films: list[str]) -> None:
    """Print medians of rounds in which all commands run one after the other."""
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


def compare_servers(package: Path, films: list[bytes], precisions: list[str], long: int) -> None:
    """Print the answers of `pulmo serve` and of the plain way to clients at once, medians of rounds in turns."""
    plain = find_port()
    theirs = [sys.executable, str(Path(__file__).with_name("_plain.py")), str(package), str(plain)]
    ours = [sys.executable, "-c", "from pulmo.cli import main; main()", "serve", "--package", str(package)]
    ways, processes = {"plain": (plain, "/predict", "film")}, {}
    with ExitStack() as stack:
        processes["plain"] = stack.enter_context(running(theirs, plain))
        for name in precisions:
            port = find_port()
            command = [*ours, "--port", str(port), *(["--bf16"] if name == "bf16" else [])]
            processes[name] = stack.enter_context(running(command, port))
            ways[name] = port, "/v1/predict", "films"
        for way in ways.values():
            ask(*way, films, 8, 100)  # warms up
        for clients, count in CLIENTS.items():
            turns, spent = [], {name: -sum(process.cpu_times()[:2]) for name, process in processes.items()}
            for _ in range(LOADS):
                turns.append({name: ask(*way, films, clients, count) for name, way in ways.items()})
            for name, process in processes.items():
                loads = [turn[name] for turn in turns]
                spent[name] += sum(process.cpu_times()[:2])
                rate, p50, p95 = (statistics.median(column) for column in zip(*map(astuple, loads), strict=True))
                memory = process.memory_info().rss / 2**20
                times = f"p50 {1e3 * p50:.0f} ms, p95 {1e3 * p95:.0f} ms"
                times += f", {1e3 * spent[name] / count / LOADS:.1f} ms of a core a film"
                print(f"{clients:2} clients, {name:5} {rate:5.0f} films/s, {times}, {memory:.0f} MB")
            for name in precisions:
                low, middle, high = sorted(turn[name].rate / turn["plain"].rate for turn in turns)
                print(f"{clients:2} clients, {name}, films/s over plain: {middle:.1f} ({low:.1f} to {high:.1f})")
        for name in precisions:
            drawn = ask(ways[name][0], "/v1/predict?heatmap=1", "films", films, 1, 50)
            print(f"{name}, heat map: p50 {1e3 * drawn.p50:.0f} ms, p95 {1e3 * drawn.p95:.0f} ms")
            for done in range(0, long, long // 10 or 1):
                ask(*ways[name], films, 32, long // 10 or 1)
                memory = processes[name].memory_info().rss / 2**20
                print(f"{name}, after {done + (long // 10 or 1):5} films more: {memory:.0f} MB")


def run(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the most memory that it held, in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def compare_precisions(package: Path, films: list[str]) -> None:
    """Print what the answers in bf16 differ by from those in fp32."""
    from pulmo.evaluation.novelty import measure_films  # not before, for it brings pandas, which counts in memory

    predictor, quick = Predictor.load(package, threads=1), Predictor.load(package, threads=1, bf16=True)
    decoded = [predictor.read(film) for film in films]
    exact, near = predictor.answer(decoded, anyway=True), quick.answer(decoded, anyway=True)
    pairs = list(zip(exact, near, strict=True))
    decided = sum((a.label, a.unsure, a.refusal) != (b.label, b.unsure, b.refusal) for a, b in pairs)
    logits, probabilities = (
        max(abs(getattr(a, name) - getattr(b, name)) for a, b in pairs) for name in ("logit", "prob_pneumonia")
    )
    again = sum(a.logit == b.logit for a, b in pairs)
    print(f"bf16 beside fp32, {len(films)} films: {decided} decisions differ, {again} scored in fp32 too")
    print(f"log-odds differ by at most {logits:.2f}, probabilities by {probabilities:.3f}")
    if predictor.familiarity:
        limit, pixels = predictor.familiarity.limit, np.stack([film.pixels for film in decoded])
        networks = [Network((package / ONNX).read_bytes(), threads=1, bf16=bf16) for bf16 in (False, True)]
        away, moved = (measure_films(predictor.familiarity, one, pixels, range(len(pixels))) for one in networks)
        apart = np.abs(away - moved)
        close = apart[np.abs(away - limit) < 1].max(initial=0)
        print(f"distances differ by at most {apart.max():.2f}, and by {close:.2f} within 1 of the limit")


def compare_runtimes(package: Path, films: list[str], precisions: list[str]) -> None:
    """Print the median time of a decoded film by the package's ONNX in each precision, and by PyTorch, in turns."""
    import torch  # not before, for the same reason

    from pulmo.model.classifier import load_classifier
    from pulmo.model.scoring import logit_pneumonia, to_input

    classifier = load_classifier(package)
    predictors = {name: Predictor.load(package, bf16=name == "bf16") for name in precisions}
    decoded, info = {film: predictors["fp32"].read(film) for film in films}, classifier.info
    network = classifier.network.to(memory_format=torch.channels_last)

    def answer_eagerly(film: str) -> None:
        gray = torch.from_numpy(decoded[film].pixels[None])
        with torch.inference_mode():
            for _ in range(info.tta_views):
                logit_pneumonia(network(to_input(gray, info.mean, info.std))).item()

    def answer_with(predictor: Predictor, film: str) -> None:
        predictor.answer([decoded[film]])

    ways: dict[str, Callable[[str], object]] = {"eager PyTorch": answer_eagerly}
    for name, each in predictors.items():
        ways |= {name: partial(answer_with, each), f"{name} from the file": each.predict}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, way in ways.items():
            for film in films:
                began = time.perf_counter()
                way(film)
                if turn:  # the first warms up
                    times[name].append(time.perf_counter() - began)
    middle = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    print(*(f"{name} {value:.1f} ms" for name, value in middle.items()), sep=", ")
    for name in predictors:
        print(f"{name} / eager PyTorch: {middle[name] / middle['eager PyTorch']:.2f}")
    print(f"fp32, from the file / decoded: {middle['fp32 from the file'] / middle['fp32']:.2f}")


if __name__ == "__main__":
    main()
