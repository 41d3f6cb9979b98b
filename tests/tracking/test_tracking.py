import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_project import copy_project, run_stage

from pulmo.base.errors import UserError
from pulmo.base.files import read_json
from pulmo.base.git import git_state
from pulmo.base.params_file import flatten
from pulmo.tracking.runs import evaluate_run, train_run
from pulmo.tracking.store import EXPERIMENT, open_store, store_uri, unusable

PARAMS = {"train": {"lr": 0.1, "augment": {"flip": 0.5}}, "evaluate": {"seed": 1}}
HISTORY = [{"epoch": 1, "val_loss": 0.6, "val_auroc": 0.7}, {"epoch": 2, "val_loss": 0.5, "val_auroc": 0.9}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


def client(root: Path):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=store_uri(root))


def train(root: Path, resumed: str | None = None, params: dict = PARAMS) -> str:
    with train_run(root, params, {"data_sha256": "d"}, resumed) as run:
        for row in HISTORY:
            run.log_epoch(row)
    return run.run_id


def evaluate(root: Path, trained_in: str, params: dict = PARAMS) -> str:
    record = {"run_id": trained_in, "environment": {"env.cpu": "another"}}
    with evaluate_run(root, record, params, {"data_sha256": "d"}, HISTORY) as run:
        run.log_metrics({"test.auroc": 0.8, "test.f1": None})
    return run.run_id


def test_train_and_evaluate_of_one_experiment_share_a_run(root, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-crow")
    run_id = train(root)
    assert evaluate(root, run_id) == run_id
    run = client(root).get_run(run_id)
    assert run.info.run_name == "tidy-crow"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.lr": "0.1", "train.augment.flip": "0.5", "evaluate.seed": "1"}
    assert all(run.data.metrics.pop(f"seconds.{stage}") < 60 for stage in ("train", "evaluate"))
    assert run.data.metrics == {"epoch/val_loss": 0.5, "epoch/val_auroc": 0.9, "test.auroc": 0.8}
    assert run.data.tags["env.cpu"] not in ("", "another")
    assert run.data.tags["data_sha256"] == "d"
    assert run.data.tags["dvc.experiment"] == "tidy-crow"
    points = client(root).get_metric_history(run_id, "epoch/val_auroc")
    assert [(point.step, point.value) for point in points] == [(1, 0.7), (2, 0.9)]


def test_params_that_mlflow_names_otherwise_do_not_part_evaluate_from_train(root):
    params = PARAMS | {"data": {"folder": {"label_values": {"Opacity (left)": "PNEUMONIA"}}}}
    run_id = train(root, params=params)
    assert evaluate(root, run_id, params) == run_id


def test_evaluate_of_a_cached_train_makes_a_run_of_its_own(root, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "first")
    trained = train(root)
    evaluate(root, trained)
    monkeypatch.setenv("DVC_EXP_NAME", "second")
    second = evaluate(root, trained)
    assert second != trained
    run = client(root).get_run(second)
    assert run.info.run_name == "second"
    assert run.data.tags["train_run_id"] == trained
    assert run.data.tags["env.cpu"] == "another"
    assert len(client(root).get_metric_history(second, "epoch/val_auroc")) == 2
    assert client(root).get_run(trained).info.run_name == "first"


def test_a_second_evaluation_does_not_write_into_the_first(root):
    trained = train(root)
    assert evaluate(root, trained) == trained
    assert evaluate(root, trained) != trained


def test_evaluate_does_not_go_on_in_a_run_with_other_params(root):
    trained = train(root)
    other = evaluate(root, trained, {**PARAMS, "evaluate": {"seed": 2}})
    assert other != trained
    assert client(root).get_run(other).data.params["evaluate.seed"] == "2"


def test_experiments_of_one_name_but_two_baselines_have_two_runs(root, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "same")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    trained = train(root)
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "b" * 40)
    assert evaluate(root, trained) != trained


@pytest.mark.parametrize("unknown", ["0" * 32, ""])
def test_evaluate_finds_no_run_in_a_colleagues_store(root, unknown):
    run = client(root).get_run(evaluate(root, unknown))
    assert run.data.params["train.lr"] == "0.1"
    assert run.data.metrics["epoch/val_auroc"] == 0.9


def test_a_killed_training_goes_on_in_its_run(root):
    def stop(row: dict) -> None:
        run.log_epoch(row)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), train_run(root, PARAMS, {}) as run:
        stop({"epoch": 1, "val_loss": 0.5})
    assert client(root).get_run(run.run_id).info.status == "KILLED"
    with train_run(root, PARAMS, {}, run.run_id) as resumed:
        for epoch in (1, 2):  # a resumed training tells all its epochs
            resumed.log_epoch({"epoch": epoch, "val_loss": 0.5})
    assert resumed.run_id == run.run_id
    assert client(root).get_run(run.run_id).info.status == "FINISHED"
    assert [point.step for point in client(root).get_metric_history(run.run_id, "epoch/val_loss")] == [1, 2]


def test_a_killed_training_of_another_experiment_is_left_alone(root, monkeypatch):
    old = train(root)
    monkeypatch.setenv("DVC_EXP_NAME", "other")
    assert train(root, old) != old


def test_an_error_ends_the_run_as_failed(root):
    with pytest.raises(ValueError, match="bad"), train_run(root, PARAMS, {}) as run:
        raise ValueError("bad")
    assert client(root).get_run(run.run_id).info.status == "FAILED"


def test_artifacts_lie_at_the_root_wherever_the_stage_runs(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.png").write_bytes(b"x")
    (tmp_path / "card.md").write_bytes(b"y")
    with train_run(root, PARAMS, {}) as run:
        run.log_path(tmp_path / "plots")
        run.log_path(tmp_path / "card.md")
    held = {path.relative_to(root / "mlartifacts").parts[2:] for path in (root / "mlartifacts").rglob("*.*")}
    assert {("plots", "roc.png"), ("card.md",)} <= held
    assert {path.name for path in tmp_path.iterdir()} == {"plots", "card.md"}


def test_a_store_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    started = time.monotonic()
    for uri in (
        "ftp://nowhere",
        "http://127.0.0.1:1",
        "postgresql://a:secret@127.0.0.1:1/b",
        "http://[",
        "sqlite:////proc/x",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(
            UserError, match=r"(?s)^the MLflow store .* cannot be used: .*MLFLOW_TRACKING_URI.*$"
        ) as error:
            train(tmp_path)
        assert "secret" not in str(error.value)
    assert time.monotonic() - started < 60, "MLflow itself tries again for minutes"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:pa/secret@127.0.0.1:1/b",
        "postgresql://user:p@secret@127.0.0.1:1/b",
        "postgresql://user:secret/pa@127.0.0.1:1/b",
        "postgresql//user:secret@127.0.0.1:1/b",
        "http://secret@127.0.0.1:1",
        "http://127.0.0.1:1?token=secret",
    ],
)
def test_a_store_that_cannot_be_used_tells_scheme_and_host_alone(address, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1") as error:
        open_store(tmp_path)
    assert "secret" not in str(error.value)
    assert not list(tmp_path.glob("*secret*")), "nor does a folder bear it"
    assert "secret" not in str(unusable(address, OSError(f"cannot reach {address}, no such host: secret")))


@pytest.mark.slow
def test_a_wrong_password_is_one_line(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.replace("postgres:@", "nobody:secret@"))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"(?s)nobody.*correct MLFLOW_TRACKING_URI") as error:
        train(tmp_path)
    assert time.monotonic() - started < 30
    assert "secret" not in str(error.value)


def test_a_file_is_read_from_the_last_run_of_a_name_that_holds_it(root, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "it's read")
    for text in ("first", "second", None):
        with train_run(root, PARAMS, {}) as run:
            if text:
                (tmp_path / "told.json").write_text(text)
                run.log_path(tmp_path / "told.json")
        time.sleep(0.01)
    assert open_store(root).read_artifact("it's read", "told.json") == "second"
    assert open_store(root).read_artifact(run.run_id, "told.json") is None


def test_the_machine_is_watched_while_it_trains(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with train_run(root, PARAMS, {}) as run:
        time.sleep(0.5)
        run.log_epoch(HISTORY[0])
        time.sleep(1)
    found = client(root).get_run(run.run_id).data.metrics
    assert found["system/system_memory_usage_megabytes"] > 0
    assert next(iter(found)) == "epoch/val_auroc", "MLflow's comparison opens on the metric that was written first"
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


def test_a_machine_that_cannot_be_watched_trains_all_the_same(root, monkeypatch, capsys):
    import mlflow.system_metrics.system_metrics_monitor as monitors

    def fail(*arguments: object, **options: object) -> None:
        raise AttributeError("no counters here")

    monkeypatch.setattr(monitors, "SystemMetricsMonitor", fail)
    assert client(root).get_run(train(root)).info.status == "FINISHED"
    assert "no system metrics: no counters here" in capsys.readouterr().out


def test_datasets_that_another_experiment_just_wrote_are_no_error(root, monkeypatch):
    import mlflow

    facts = {split: {"digest": split * 3, "films": 3, "patients": 2, "pneumonia": 1} for split in ("train", "val")}
    with train_run(root, PARAMS, {}) as run:
        write, calls = run.client.log_inputs, []

        def written_between(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) == 1:
                raise mlflow.exceptions.MlflowException("UNIQUE constraint failed: datasets")
            write(*arguments)

        monkeypatch.setattr(run.client, "log_inputs", written_between)
        run.log_datasets(facts)
        run.log_datasets(facts)  # evaluate tells again what train told
    held = client(root).get_run(run.run_id).inputs.dataset_inputs
    assert [(entry.dataset.name, entry.dataset.digest, entry.tags[0].value) for entry in held] == [
        ("train", "traintraintrain", "train"),
        ("val", "valvalval", "val"),
    ]


@pytest.mark.slow
def test_a_stopped_training_ends_as_killed(tmp_path):
    program = (
        "import time\nfrom pathlib import Path\nfrom pulmo.tracking.runs import train_run\n"
        "from pulmo.base.process import run_stage\n"
        "def main():\n    with train_run(Path.cwd(), {}, {}):\n"
        "        print('running', flush=True)\n        time.sleep(60)\nrun_stage(main)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    (run,) = client(tmp_path).search_runs([client(tmp_path).get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.status == "KILLED"


def only_run(folder: Path):
    store = client(folder)
    (run,) = store.search_runs([store.get_experiment_by_name(EXPERIMENT).experiment_id])
    return run


def content(folder: Path) -> dict:
    """All that a run holds but what follows from when and where it was written."""
    store, run = client(folder), only_run(folder)
    tags = {key: value for key, value in run.data.tags.items() if key.startswith(("env.", "git.", "data"))}
    when = ("seconds.", "system/")  # MLflow looks at the machine every ten seconds, where a stage takes that long
    model = store.get_logged_model(run.outputs.model_outputs[0].model_id)
    return {
        "tags": tags,
        "params": run.data.params,
        "metrics": {key: value for key, value in run.data.metrics.items() if not key.startswith(when)},
        "curve": [(point.step, point.value) for point in store.get_metric_history(run.info.run_id, "epoch/val_loss")],
        "datasets": [entry.dataset.to_dictionary() for entry in run.inputs.dataset_inputs],
        "files": sorted(item.path for item in store.list_artifacts(run.info.run_id)),
        "model": sorted((metric.key, metric.value, metric.dataset_digest) for metric in model.metrics),
        "status": (run.info.status, str(model.status), run.data.tags["pulmo.evaluated"]),
    }


@pytest.mark.slow
def test_a_run_holds_everything(project):
    held, report = content(project), read_json(project / "reports/evaluation.json")
    for split, name in (("val", "auroc"), ("test", "auroc"), ("test", "sensitivity")):
        assert held["metrics"][f"{split}.{name}"] == report[split]["metrics"][name]["value"]
    flat = flatten(read_json(project / "reports/metrics.json"))
    assert {key: held["metrics"][key] for key in flat} == flat
    profiles = {entry["name"]: entry["profile"] for entry in held["datasets"]}
    counts = f'"films": {report["test"]["films"]}, "patients": {report["test"]["patients"]}'
    assert profiles["test"] == f'{{{counts}, "pneumonia": {report["test"]["pneumonia"]}}}'
    assert set(profiles) == {"train", "val", "test"}
    assert {"env.python", "env.torch", "env.cpu", "env.gpu", "env.precision", "data_sha256", "git.dirty"} <= set(
        held["tags"]
    )
    assert {"evaluation.json", "model_card.html", "plots", "predictions.csv"} <= set(held["files"])
    digest = hashlib.sha256((project / "reports/evaluation.json").read_bytes()).hexdigest()
    assert only_run(project).data.tags["evaluation_sha256"] == digest
    assert held["status"] == ("FINISHED", "READY", "true")
    assert ("test.auroc", report["test"]["metrics"]["auroc"]["value"]) in {entry[:2] for entry in held["model"]}
    logged = client(project).get_logged_model(only_run(project).outputs.model_outputs[0].model_id)
    assert (logged.name, logged.params) == (only_run(project).info.run_name, held["params"])
    assert logged.tags["data_sha256"] == held["tags"]["data_sha256"]
    words = only_run(project).data.tags["mlflow.note.content"]
    assert f"On {report['test']['films']} test films of {report['test']['patients']} patients" in words
    assert f"runs/{only_run(project).info.run_id}/artifacts/model_card.html?" in words
    curves = {key for key in held["metrics"] if not key.startswith("system/")} - set(flat)
    assert all(key.startswith("epoch/") for key in curves), "what has a course stands in a section of its own"


@pytest.mark.slow
def test_a_colleague_without_the_run_gets_a_whole_one(project, tmp_path):
    colleague = copy_project(project, tmp_path / "colleague")
    (colleague / "mlflow.db").unlink()
    shutil.rmtree(colleague / "mlartifacts")
    run_stage("evaluate", colleague)
    assert content(colleague) == content(project)
    assert only_run(colleague).data.tags["train_run_id"] == only_run(project).info.run_id


@pytest.mark.slow
def test_an_experiment_that_another_machine_just_made_is_taken(root, monkeypatch):
    import mlflow

    find, asked = mlflow.MlflowClient.get_experiment_by_name, []

    def find_too_early(self, name):
        asked.append(name)
        return find(self, name) if len(asked) > 1 else None

    expected = open_store(root).experiment
    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", find_too_early)
    assert open_store(root).experiment == expected


def test_two_processes_may_create_the_store_at_once(tmp_path):
    program = (
        "from pathlib import Path\nfrom pulmo.tracking.runs import train_run\n"
        "with train_run(Path.cwd(), {'a': 1}, {}) as run:\n"
        "    for epoch in range(1, 21):\n        run.log_epoch({'epoch': epoch, 'loss': epoch / 2})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    runs = client(tmp_path).search_runs([client(tmp_path).get_experiment_by_name(EXPERIMENT).experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert len(client(tmp_path).get_metric_history(run.info.run_id, "epoch/loss")) == 20


def test_git_state_ignores_what_dvc_rewrites(tmp_path):
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_state(tmp_path) == ("no commit", False)
    git("init")
    assert git_state(tmp_path) == ("no commit", False)
    for name in ("code.py", "params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "x")
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("2")
    revision, dirty = git_state(tmp_path)
    assert len(revision) == 40
    assert not dirty
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path)[1]


def test_params_named_after_labels_of_others_are_kept(root):
    store = open_store(root)
    run_id = store.create_run("labels", {})
    store.log_params(run_id, {"data.folder.label_values.Opacity (left)|both//x": "PNEUMONIA", "train.lr": 0.1})
    logged = store.client.get_run(run_id).data.params
    assert logged == {"data.folder.label_values.Opacity _left__both/x": "PNEUMONIA", "train.lr": "0.1"}
