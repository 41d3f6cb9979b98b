"""Experiments queued and run two at a time: DVC and MLflow know the same ones, with the same numbers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_project import TINY, commit, make_checkout, run, run_queued, running_server

from pulmo.experiments.listing import read_experiments
from pulmo.experiments.project import Project
from pulmo.tracking.store import EXPERIMENT

pytestmark = pytest.mark.slow


@pytest.fixture
def prepared(pristine: Path, tmp_path: Path) -> Path:
    """A checkout of its own for each test: workers that outlive a queue would take the next one's experiments."""
    return Path(shutil.copytree(pristine, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the data ready and committed; nothing was trained, and there is no store."""
    folder = make_checkout(tmp_path_factory.mktemp("parallel") / "project", TINY)
    run(folder, "dvc", "repro", "split", "preprocess")
    commit(folder, "The data")
    return folder


def read_runs(uri: str) -> tuple[Any, list[Any]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    return client, client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])


def assert_one_story(folder: Path, uri: str, names: set[str]) -> None:
    """Every experiment of `names` has one run that is whole and says what `dvc exp show --json` says."""
    told = {experiment.name: experiment for experiment in read_experiments(Project(folder)) if experiment.name in names}
    client, runs = read_runs(uri)
    runs = [run for run in runs if run.info.run_name in names]
    assert sorted(run.info.run_name for run in runs) == sorted(told) == sorted(names)
    for found in runs:
        experiment = told[found.info.run_name]
        assert (found.info.status, experiment.state) == ("FINISHED", "Success")
        assert found.data.tags["dvc.experiment"] == experiment.name
        assert found.data.tags["dvc.baseline"] == experiment.baseline
        assert {key: found.data.metrics[key] for key in experiment.metrics} == experiment.metrics
        assert "test.auroc" in experiment.metrics
        assert found.data.params == {key: str(value) for key, value in experiment.params.items()}
        for curve in ("epoch/train_loss", "epoch/val_loss", "epoch/val_auroc"):
            assert [point.step for point in client.get_metric_history(found.info.run_id, curve)] == [1, 2]
        assert {entry.dataset.name for entry in found.inputs.dataset_inputs} == {"train", "val", "test"}
        assert len(found.outputs.model_outputs) == 1
        assert "model_card.html" in {item.path for item in client.list_artifacts(found.info.run_id)}


def queue(folder: Path, *settings: str) -> set[str]:
    before = {experiment.name for experiment in read_experiments(Project(folder))}
    run(folder, "dvc", "exp", "run", "--queue", *(part for setting in settings for part in ("-S", setting)))
    return {experiment.name for experiment in read_experiments(Project(folder))} - before


def test_eight_experiments_make_the_store_and_share_it(prepared):
    # The second four take train from DVC's cache, where the first have left it by then.
    names = queue(prepared, "evaluate.seed=1,2", "train.lr=0.001,0.002,0.003,0.004")
    assert len(names) == 8
    assert not (prepared / "mlflow.db").exists()
    run_queued(prepared, jobs=2)
    assert_one_story(prepared, f"sqlite:///{prepared / 'mlflow.db'}", names)


def test_the_same_training_in_two_experiments_at_once_on_a_server_with_postgresql(prepared, database, tmp_path):
    names = queue(prepared, "train.lr=0.005,0.006", "evaluate.seed=1,2")
    command = ("mlflow", "server", "--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "held"))
    options = ("--host", "127.0.0.1", "--port", "PORT", "--workers", "1")
    lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running_server(*command, *options, ready="health", folder=tmp_path, **lean) as uri:
        run_queued(prepared, jobs=2, MLFLOW_TRACKING_URI=uri)
        assert_one_story(prepared, uri, names)
    assert not (prepared / "mlflow.db").exists()
