"""Films a second on a Ray cluster of one and of two nodes with a core each, beside as many processes without Ray.

Run from the project's root: `python bench/cluster.py`. All nodes are on this machine, so that two say nothing on fewer
than two free cores. The films are noise of 1300 x 900 pixels as JPEG, and ResNet-18 with random weights answers.
"""

import contextlib
import io
import itertools
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil

from pulmo import Predictor
from pulmo.answering.batch import answer_films, answer_on_cluster
from pulmo.answering.gather import gather_films
from pulmo.base.cluster import join_cluster
from pulmo.base.files import sha256_file
from pulmo.dataset.preprocessing import process_films
from pulmo.images.film_store import FilmStore
from pulmo.model.classifier import Classifier
from pulmo.model.export import export_network
from pulmo.model.networks import build_model
from pulmo.model.weights import to_arrays
from pulmo.package.info import PackageInfo
from pulmo.package.storage import save_package

SIZE = 224
FILMS = 800
ANSWERED = 120  # of them
ROUNDS = 2
NODE = {"num_cpus": 1, "object_store_memory": 200_000_000, "include_dashboard": False}
LOCKED = {
    "temperature": {"value": 1.0, "note": ""},
    "operating_point": {"policy": "fixed", "threshold": 0.5, "low": 0.4, "high": 0.6},
    "abstention": {"target_error": 0.02, "low": 0.45, "high": 0.55, "reached": True},
}


def main() -> None:
    """Print figures of each, and the seconds until a cluster that runs already has done its first task."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch, "raw")
        films = draw_films(raw)
        package = make_package(Path(scratch, "package"))
        folder = Path(scratch, "processed")
        for processes in (1, 2):
            report(f"preprocess, {processes} process(es)", FILMS, preprocess, raw, films, folder, processes, "local")
        report("predict, this process", ANSWERED, answer, package, raw, "local")
        for nodes in (1, 2):
            with running(nodes):
                began = time.perf_counter()
                with join_cluster() as cluster:
                    cluster.submit(os.getpid)()
                    print(f"{nodes} node(s): the first task is done after {time.perf_counter() - began:.1f} s")
                    report(f"preprocess, {nodes} node(s)", FILMS, preprocess, raw, films, folder, 0, "ray")
                    report(f"predict, {nodes} node(s)", ANSWERED, answer, package, raw, "ray")


def report(what: str, films: int, work: Callable[..., None], *arguments: object) -> None:
    """Print the films a second, the processors' milliseconds a film, and those of this process alone, which bounds what
    any number of nodes can do; of the median round after one that does not count."""
    rounds = []
    for _ in range(ROUNDS + 1):
        began, before, own = time.perf_counter(), cpu_seconds(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            work(*arguments)
        rounds.append((time.perf_counter() - began, cpu_seconds() - before, time.process_time() - own))
    seconds, cpu, here = (statistics.median(values) for values in zip(*rounds[1:], strict=True))
    each = f"{1000 * cpu / films:6.1f} CPU ms a film, {1000 * here / films:.2f} of them here"
    print(f"{what:28} {films / seconds:6.0f} films/s  {each}", flush=True)


def cpu_seconds() -> float:
    """Seconds of processors that this process, those that it started and theirs have taken, also ended ones."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + used.ru_utime + used.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:2])
    return seconds


def preprocess(raw: Path, films: pd.DataFrame, folder: Path, workers: int, engine: str) -> None:
    """Decode all films anew."""
    process_films(raw, films, FilmStore(SIZE, "squash"), workers, 0, folder, engine)


def answer(package: Path, raw: Path, engine: str) -> None:
    """Answer films by themselves, with one thread for the network here as on a node."""
    predictor = Predictor.load_folder(package, threads=1)
    sources, _ = gather_films([str(raw)])
    films = itertools.islice(sources, ANSWERED)
    rows = answer_films(predictor, films) if engine == "local" else answer_on_cluster(predictor, package, films)
    assert sum(row.answer is not None for row in rows) == ANSWERED


@contextmanager
def running(nodes: int) -> Iterator[None]:
    """A cluster of so many nodes on this machine, whose address is RAY_ADDRESS meanwhile."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp()  # a short path, for sockets lie in it
    Path(folder, "ray").mkdir()
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**NODE)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def draw_films(raw: Path) -> pd.DataFrame:
    """Write the films, and describe them as the film table does."""
    raw.mkdir()
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.integers(0, 256, (900, 1300), dtype=np.uint8), (0, 0), 6)
    film = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    files = [raw / f"{number:04}.jpeg" for number in range(FILMS)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), np.roll(film, number, axis=1))
    sizes = [file.stat().st_size for file in files]
    return pd.DataFrame({"path": [file.name for file in files], "sha256": map(sha256_file, files), "bytes": sizes})


def make_package(folder: Path) -> Path:
    """A package of ResNet-18 with random weights."""
    model = {"arch": "resnet18", "head": 2, "size": SIZE, "fit": "squash", "threshold": 0.5, "temperature": 1.0}
    info = PackageInfo(**model, locked=LOCKED, metrics={}, git_revision="0" * 40)
    network = build_model(info.arch, "none", info.head, info.size).eval()
    exported = export_network(Classifier(network, info), np.zeros((1, SIZE, SIZE), np.uint8))
    save_package(folder, to_arrays(network), info, network=exported)
    return folder


if __name__ == "__main__":
    main()
