"""Many films on a Ray cluster of two nodes: the bytes that one machine gives, whatever dies on the way."""

import importlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml_text
from film_files import GRAY, encode
from PIL import Image
from ray_cluster import NODE, find_processes, two_nodes
from registered_models import change, register
from running_app import find_port
from small_package import make_package
from small_project import ROOT
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering.replicas import CORES, serving
from pulmo.answering.service import Upload, Wishes
from pulmo.base import cluster
from pulmo.base.cluster import join_cluster
from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.cli.replicas import Replicas, make_application, make_replica
from pulmo.dataset.preprocessing import process_films
from pulmo.evaluation.spread import score_on_cluster
from pulmo.films.rows.processed import open_images
from pulmo.films.rows.stack import FilmStack
from pulmo.films.rows.table import Listed
from pulmo.images.description import Keeping, describe_and_keep
from pulmo.images.film_store import FilmStore
from pulmo.model.classifier import load_classifier

pytestmark = pytest.mark.slow
TOKEN = {"Authorization": "Bearer secret"}
FILMS = 240
SIZE = 64


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    pytest.importorskip("ray", reason="pulmo[ray] is not installed")
    with two_nodes() as cluster, join_cluster():  # once, for each that joins gets new processes
        yield cluster


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films that take some 20 ms each to decode, so that there is time to kill; one is none."""
    folder = tmp_path_factory.mktemp("raw")
    dice = np.random.default_rng(3)
    coarse = dice.integers(0, 256, (12, 16), dtype=np.uint8)
    film = np.asarray(Image.fromarray(coarse).resize((1600, 1200)))
    for number in range(FILMS):
        Image.fromarray(np.roll(film, 7 * number, 1)).save(folder / f"{number:03}.jpeg")
    (folder / "077.jpeg").write_bytes(b"no film")
    return folder


@pytest.fixture(scope="module")
def films(raw: Path) -> pd.DataFrame:
    files = sorted(raw.iterdir())
    sizes = [file.stat().st_size for file in files]
    return pd.DataFrame({"path": [file.name for file in files], "sha256": map(sha256_file, files), "bytes": sizes})


@contextmanager
def killing(kill: Callable[[], None], ready: Callable[[], bool]) -> Iterator[None]:
    """Kill something as soon as `ready` is true, while the block runs."""
    killed = threading.Event()

    def watch() -> None:
        while not ready():
            time.sleep(0.01)
        kill()
        killed.set()

    threading.Thread(target=watch, daemon=True).start()
    yield
    assert killed.is_set(), "nothing was killed"


def test_what_keeps_a_cluster_from_being_joined_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{find_port()}")
    with pytest.raises(UserError, match=r"the Ray cluster at 127.* cannot be joined: .*refused"), join_cluster():
        pass
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'pulmo\[ray\]'"), join_cluster():
        pass
    with pytest.raises(UserError, match="--ray 3:1: no numbers of replicas"):
        CliRunner().invoke(cli.app, ["serve", "--ray", "3:1"], catch_exceptions=False)


def test_workers_and_nodes_that_die_midway_lose_no_film(
    nodes: Any, raw: Path, films: pd.DataFrame, tmp_path: Path
) -> None:
    process_films(raw, films, FilmStore(SIZE, "pad"), 1, 1, tmp_path / "local")

    def written(share: float) -> bool:
        parts = (tmp_path / "ray").glob(".images.npy.*.part/images.npy")
        return sum(file.stat().st_size for file in parts) > share * FILMS * SIZE**2

    def kill_node() -> None:
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    with (
        killing(lambda: find_processes("ray::_run")[0].kill(), lambda: written(0.1)),
        killing(kill_node, lambda: written(0.4)),
    ):
        process_films(raw, films, FilmStore(SIZE, "pad"), 0, 1, tmp_path / "ray", "ray")
    nodes.add_node(**NODE)
    for file in ("images.npy", "index.csv", "rejected.csv"):
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()


def test_a_film_table_from_a_cluster_is_that_of_one_machine(nodes: Any, raw: Path, tmp_path: Path) -> None:
    listed = [Listed(file.name, "NORMAL") for file in raw.iterdir()][:50]
    keeping = [Keeping(tmp_path / engine, 0.1, SIZE, "pad", decoded=True) for engine in ("local", "ray")]
    local, ray = (describe_and_keep(raw, listed, each, each.folder.name) for each in keeping)
    pd.testing.assert_frame_equal(ray, local)
    stores = [FilmStore(SIZE, "pad", each.folder, 0.1) for each in keeping]
    decodable = local.sha256[local.width > 0]
    for sha256 in decodable:
        first, second = (store.get(sha256) for store in stores)
        assert first is not None
        assert second is not None
        assert first.pixels.tobytes() == second.pixels.tobytes()


def test_answers_of_a_cluster_are_those_of_one_machine(nodes: Any, raw: Path, tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    few = [str(raw / f"{number:03}.jpeg") for number in range(70, 82)]
    (tmp_path / "other").mkdir()
    shutil.copy(few[0], tmp_path / "other")

    def ask(engine: str) -> tuple[str, dict[str, bytes]]:
        folder = tmp_path / "heat"
        options = ["--json", "--engine", engine, "--package", str(package), "--heatmap", str(folder)]
        done = CliRunner().invoke(cli.app, ["predict", *options, *few, str(tmp_path / "other"), "-"], input=b"none")
        assert done.exit_code == 1, done.output
        pictures = {file.name: file.read_bytes() for file in folder.iterdir()}
        shutil.rmtree(folder)
        return done.stdout, pictures

    assert ask("ray") == ask("local")


def test_scores_of_a_cluster_are_those_of_one_machine(nodes: Any, tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", tta_views=2)
    dice = np.random.default_rng(1)
    np.save(tmp_path / "images.npy", dice.integers(0, 256, (50, SIZE, SIZE), dtype=np.uint8))
    films = FilmStack(open_images(tmp_path / "images.npy"), dice.permutation(50)[:45])
    expected = load_classifier(package).score(films, 4, "cpu", "fp32")
    np.testing.assert_array_equal(score_on_cluster(package, 2, films, 4), expected)


def test_an_error_of_a_task_is_the_error_of_the_one_who_asked(nodes: Any) -> None:
    with join_cluster() as cluster, pytest.raises(UserError, match="is not a whole NumPy array") as caught:
        cluster.submit(partial(open_images, Path(__file__)))()
    assert caught.value.hint == "run `dvc repro preprocess`"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, empty_store: Callable[[Path], None]) -> Path:
    """A project whose store has two versions of one model; the first is champion."""
    folder = tmp_path_factory.mktemp("project")
    (folder / ".dvc").mkdir()
    empty_store(folder)
    register(folder, {number: make_package(folder / f"store/{number}").as_uri() for number in (1, 2)})
    return folder


def post_film(address: str, client: httpx.Client) -> dict[str, Any]:
    """The answer for a film, which is sent again until there is one."""
    for _ in range(100):
        try:
            answer = client.post(f"{address}/v1/predict", files={"films": encode(GRAY, "PNG")}, headers=TOKEN)
            if answer.status_code < 500:
                found: dict[str, Any] = answer.raise_for_status().json()["films"][0]["answer"]
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("no answer")


def wait_for(reached: Callable[[], object], what: str, limit: int = 30) -> None:
    end = time.monotonic() + limit
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_a_champion_that_moves_and_a_replica_that_dies_cost_no_answer(nodes: Any, root: Path) -> None:
    port = find_port()
    address, film = f"http://127.0.0.1:{port}", encode(GRAY, "PNG")
    expected = Predictor.load_folder(root / "store/1").predict(film)
    application = make_application(Replicas(fewest=2, most=2), "secret", str(root))
    with (
        serving(application, "127.0.0.1", port),
        httpx.Client(timeout=30) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        replicas = find_processes("ray::ServeReplica")
        assert len(replicas) == 2
        load = [pool.submit(post_film, address, client) for _ in range(200)]
        with killing(replicas[0].kill, lambda: sum(each.done() for each in load) > 20):
            answers = [each.result() for each in load]
        assert {answer["prob_pneumonia"] for answer in answers} == {expected.prob_pneumonia}
        assert {answer["model"]["version"] for answer in answers} == {"1"}
        wait_for(lambda: len(find_processes("ray::ServeReplica")) == 2, "the dead replica is replaced")
        change(root, "UPDATE registered_model_aliases SET version = 2")
        moved = {"2"}
        wait_for(
            lambda: {post_film(address, client)["model"]["version"] for _ in range(30)} == moved, "each replica moves"
        )
        assert client.post(f"{address}/v1/predict", files={"films": film}).status_code == 401


def test_a_replica_scores_on_the_cores_that_ray_gives_it(nodes: Any, root: Path) -> None:
    films = [Upload("film", encode(GRAY, "PNG"))] * 40

    def count() -> int:
        with mock.patch("pulmo.answering.service.usable_cores", return_value=8), ThreadPoolExecutor(8) as clients:
            service = make_replica(Replicas(), "", str(root)).state.service
            answered = list(clients.map(lambda _: service.answer(films, Wishes()), range(8)))
        assert all(answer["answer"]["label"] for answers in answered for answer in answers)
        return sum(thread.name.startswith("score") for thread in threading.enumerate())

    with join_cluster() as cluster:  # whose tasks take a core each, as replicas do
        assert cluster.submit(count)() == 1


def test_the_file_for_kubernetes_says_what_the_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="pulmo[ray] is not installed")
    from ray import __version__
    from ray.serve.schema import ServeDeploySchema

    text = (ROOT / "deploy/rayservice.yaml").read_text(encoding="utf-8")
    spec = yaml_text.load(text)["spec"]
    served = ServeDeploySchema.model_validate(yaml_text.load(spec["serveConfigV2"]))
    (application,) = served.applications
    module, _, name = application.import_path.partition(":")
    build = getattr(importlib.import_module(module), name)
    monkeypatch.delenv("PULMO_TOKEN", raising=False)
    settings = Replicas.model_validate(application.args)
    with pytest.raises(UserError, match="need a token"):
        build(settings)
    cluster = spec["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    (worker,) = workers["template"]["spec"]["containers"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert settings.most * CORES == workers["maxReplicas"] * int(worker["resources"]["limits"]["cpu"])
    assert settings.fewest * CORES <= workers["minReplicas"] * int(worker["resources"]["limits"]["cpu"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert {variable["name"] for variable in head["env"]} >= {"PULMO_TOKEN", "RAY_USAGE_STATS_ENABLED"}
    assert worker["env"] == head["env"]
    assert settings.package in [mount["mountPath"] for mount in worker["volumeMounts"]]
    assert cluster["rayVersion"] == __version__
    assert f"FROM rayproject/ray:{__version__}-" in (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
