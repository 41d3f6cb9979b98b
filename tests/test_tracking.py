import subprocess
import sys
from pathlib import Path

import pytest

from pulmo import tracking

PARAMS = {"train": {"lr": 0.1, "augment": {"flip": 0.5}}, "evaluate": {"seed": 1}}
HISTORY = [{"epoch": 1, "val_auroc": 0.7}, {"epoch": 2, "val_auroc": 0.9}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


def client(root: Path):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=tracking.store_uri(root))


def train(root: Path, resumed: str | None = None) -> str:
    with tracking.train_run(root, PARAMS, {"data_sha256": "d"}, resumed) as run:
        for row in HISTORY:
            run.log_epoch(row)
    return run.run_id


def evaluate(root: Path, trained_in: str) -> str:
    with tracking.evaluate_run(root, trained_in, PARAMS, {"data_sha256": "d"}, HISTORY) as run:
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
    assert run.data.metrics == {"val_auroc": 0.9, "test.auroc": 0.8}
    assert run.data.tags["data_sha256"] == "d"
    assert run.data.tags["dvc.experiment"] == "tidy-crow"
    points = client(root).get_metric_history(run_id, "val_auroc")
    assert [(point.step, point.value) for point in points] == [(1, 0.7), (2, 0.9)]


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
    assert len(client(root).get_metric_history(second, "val_auroc")) == 2
    assert client(root).get_run(trained).info.run_name == "first"


def test_a_second_evaluation_does_not_write_into_the_first(root):
    trained = train(root)
    assert evaluate(root, trained) == trained
    assert evaluate(root, trained) != trained


@pytest.mark.parametrize("unknown", ["0" * 32, ""])
def test_evaluate_finds_no_run_in_a_colleagues_store(root, unknown):
    run = client(root).get_run(evaluate(root, unknown))
    assert run.data.params["train.lr"] == "0.1"
    assert run.data.metrics["val_auroc"] == 0.9


def test_a_killed_training_goes_on_in_its_run(root):
    with pytest.raises(KeyboardInterrupt), tracking.train_run(root, PARAMS, {}) as run:
        raise KeyboardInterrupt
    assert client(root).get_run(run.run_id).info.status == "KILLED"
    assert train(root, run.run_id) == run.run_id
    assert client(root).get_run(run.run_id).info.status == "FINISHED"


def test_a_killed_training_of_another_experiment_is_left_alone(root, monkeypatch):
    old = train(root)
    monkeypatch.setenv("DVC_EXP_NAME", "other")
    assert train(root, old) != old


def test_an_error_ends_the_run_as_failed(root):
    with pytest.raises(ValueError, match="bad"), tracking.train_run(root, PARAMS, {}) as run:
        raise ValueError("bad")
    assert client(root).get_run(run.run_id).info.status == "FAILED"


def test_artifacts_lie_at_the_root_wherever_the_stage_runs(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.png").write_bytes(b"x")
    (tmp_path / "card.md").write_bytes(b"y")
    with tracking.train_run(root, PARAMS, {}) as run:
        run.log_path(tmp_path / "plots")
        run.log_path(tmp_path / "card.md")
    held = {path.relative_to(root / "mlartifacts").parts[2:] for path in (root / "mlartifacts").rglob("*.*")}
    assert {("plots", "roc.png"), ("card.md",)} <= held
    assert {path.name for path in tmp_path.iterdir()} == {"plots", "card.md"}


def test_a_store_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://nowhere")
    with pytest.raises(ValueError, match=r"the MLflow store ftp://nowhere cannot be used .*MLFLOW_TRACKING_URI"):
        train(tmp_path)


@pytest.mark.slow
def test_two_processes_may_create_the_store_at_once(tmp_path):
    program = (
        "from pathlib import Path\nfrom pulmo import tracking\n"
        "with tracking.train_run(Path.cwd(), {'a': 1}, {}) as run:\n"
        "    for epoch in range(20):\n        run.log_epoch({'epoch': epoch, 'loss': epoch / 2})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    runs = client(tmp_path).search_runs([client(tmp_path).get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert len(client(tmp_path).get_metric_history(run.info.run_id, "loss")) == 20


def test_git_state_ignores_what_dvc_rewrites(tmp_path):
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert tracking.git_state(tmp_path) == ("no commit", False)
    git("init")
    for name in ("code.py", "params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "x")
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("2")
    revision, dirty = tracking.git_state(tmp_path)
    assert len(revision) == 40
    assert not dirty
    (tmp_path / "code.py").write_text("2")
    assert tracking.git_state(tmp_path)[1]
