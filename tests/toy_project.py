"""A DVC project whose one stage takes a moment, and leaves what the real pipeline leaves for people to compare."""

from pathlib import Path

from small_project import commit, run

STAGE = """
import csv, json, pathlib, sys
from pulmo.base.yaml import read_yaml
lr = read_yaml(pathlib.Path("params.yaml"))["train"]["lr"]
if lr < 0:
    sys.exit(f"error: train.lr: input should be greater than 0, got {lr}")
reports = pathlib.Path("reports")
reports.mkdir(exist_ok=True)
auroc = 1 / 3 + lr
bounds = {"value": auroc, "low": auroc - 0.1, "high": auroc + 0.1, "films": 120, "patients": 60}
metrics = {split: {"auroc": auroc} for split in ("val", "test")}
(reports / "metrics.json").write_text(json.dumps(metrics))
(reports / "evaluation.json").write_text(json.dumps({split: {"metrics": {"auroc": bounds}} for split in metrics}))
with open(reports / "history.csv", "w", newline="") as file:
    csv.writer(file).writerows([["epoch", "val_auroc"], [1, lr], [2, auroc]])
"""
PIPELINE = """
stages:
  evaluate:
    cmd: python stage.py
    deps: [stage.py]
    params: [train]
    outs:
      - reports/history.csv
      - reports/evaluation.json
      - reports/metrics.json:
          cache: false
metrics:
  - reports/metrics.json
"""


PARAMS = "train:\n  lr: 0.1\n  arch: small\n"


def make_toy(folder: Path, stage: str = STAGE, pipeline: str = PIPELINE, params: str = PARAMS) -> Path:
    """A repository with one commit in which the one stage, stage.py, has run."""
    folder.mkdir()
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "tester"), ("user.email", "tester@example.org")):
        run(folder, "git", "config", key, value)
    run(folder, "dvc", "init", "--quiet")
    (folder / "stage.py").write_text(stage)
    (folder / "dvc.yaml").write_text(pipeline)
    (folder / "params.yaml").write_text(params)
    (folder / ".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/.mlflow.lock\n/optuna.db\n/reports/sweeps/\n")
    run(folder, "dvc", "repro", "--quiet")
    commit(folder, "A toy")
    return folder
