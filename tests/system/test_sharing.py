"""What one person ran, another has: data and models through S3, code and experiments through Git."""

from pathlib import Path

import pytest
from small_project import TINY, commit, make_checkout, run

from pulmo.base.files import sha256_file
from pulmo.experiments.listing import read_experiments
from pulmo.experiments.project import Project
from pulmo.experiments.sync import list_without_run, sync_store

pytestmark = pytest.mark.slow
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def bucket(monkeypatch):
    """Address of an S3 service on loopback with the bucket `films` in it."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 of the dev extra is not installed")
    server_of = pytest.importorskip("moto.server", reason="moto of the dev extra is not installed").ThreadedMotoServer
    import boto3

    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)
    server = server_of("127.0.0.1", 0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="films")
    yield address
    server.stop()


def outputs(folder: Path) -> dict[str, str]:
    """Hash of each file that the pipeline wrote."""
    files = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def test_a_second_clone_has_everything_and_runs_nothing(tmp_path, bucket):
    here, hub, there = make_checkout(tmp_path / "here", TINY), tmp_path / "hub.git", tmp_path / "there"
    run(tmp_path, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub))
    run(here, "git", "remote", "add", "origin", str(hub))
    run(here, "dvc", "remote", "add", "--default", "store", "s3://films/pulmo")
    run(here, "dvc", "remote", "modify", "store", "endpointurl", bucket)
    run(here, "dvc", "repro")
    commit(here, "The first results")
    run(here, "dvc", "exp", "run", "--temp", "--name", "hotter", "-S", "train.lr=0.002")
    run(here, "git", "push", "--quiet", "origin", "main")
    run(here, "dvc", "push")
    run(here, "dvc", "exp", "push", "origin", "hotter")

    run(tmp_path, "git", "clone", "--quiet", str(hub), str(there))
    assert not (there / "data").exists()
    run(there, "dvc", "pull")
    pulled = outputs(there)
    assert pulled.items() <= outputs(here).items()
    assert {"models/package/weights.safetensors", "data/processed/images.npy", "reports/model_card.html"} <= set(pulled)
    assert "Data and pipelines are up to date" in run(there, "dvc", "repro")
    assert run(there, "git", "status", "--porcelain") == ""

    assert read_experiments(Project(there)) == []
    assert list_without_run(Project(there), []) == ["workspace"]
    run(there, "dvc", "exp", "pull", "origin", "hotter")
    (mine,), (theirs,) = (
        [found for found in read_experiments(Project(folder)) if found.name] for folder in (here, there)
    )
    assert (theirs.name, theirs.params["train.lr"], theirs.metrics) == ("hotter", 0.002, mine.metrics)
    run(there, "dvc", "exp", "apply", "hotter")
    assert "Data and pipelines are up to date" in run(there, "dvc", "repro")
    weights = "models/package/weights.safetensors"
    assert outputs(there)[weights] != pulled[weights]
    assert not (there / "mlflow.db").exists(), "nothing was run"
    run(there, "git", "checkout", "--quiet", "--force", "main")
    run(there, "dvc", "checkout", "--quiet", "--force")
    theirs = f"repro-{run(there, 'git', 'rev-parse', 'HEAD~1')[:7]}"
    assert [line.split()[:2] for line in sync_store(Project(there))] == [["added", "hotter"], ["added", theirs]]
    assert list(sync_store(Project(there))) == []
