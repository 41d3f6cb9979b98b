"""stages/train.py started by Slurm itself, as a cluster of this one machine for the time of a test."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from running_app import find_port
from small_project import ROOT, copy_project, run_stage, write_params

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)),
        reason="Slurm is not installed, or this is not root, who can start it; .ci/run installs it where it may, and "
        "test_launch.py sets its variables for everybody",
    ),
]
# Without random draws, so that two processes and one agree within rounding.
STEADY = {"arch": "timm:test_vit", "optimizer": "sgd", "schedule": "constant", "epochs": 2, "devices": "auto"}
NO_AUGMENTATION = dict.fromkeys(("flip", "rotation", "zoom", "translation", "edge", "brightness", "contrast"), 0.0)
CONFIGURATION = """
ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={name} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes={name} Default=YES
"""


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    """The variables for programs that ask a running Slurm."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        places = {"controller_port": find_port(), "node_port": find_port(), "folder": folder}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(name=socket.gethostname().split(".")[0], **places))
        (folder / "munge.key").write_bytes(secrets.token_bytes(64))
        (folder / "munge.key").chmod(0o600)
        munge = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        configured = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            daemon = stack.enter_context(subprocess.Popen(command, env=configured, stderr=subprocess.DEVNULL))
            stack.callback(daemon.terminate)
        end = time.monotonic() + 30
        state = ["sinfo", "--noheader", "--format=%t"]
        while subprocess.run(state, env=configured, capture_output=True, text=True).stdout.strip() != "idle":
            assert time.monotonic() < end, "Slurm has no node"
            time.sleep(0.2)
        yield configured


def read_history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "reports/history.csv").drop(columns="seconds")


def test_two_tasks_of_srun_train_as_one_process_does(slurm, project, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("alone", "both"):
        write_params(copy_project(project, tmp_path / name), {"train": {**STEADY, "augment": NO_AUGMENTATION}})
    tasks = ["srun", "--ntasks=2", "--ntasks-per-node=2", "--kill-on-bad-exit=1"]
    command = [*tasks, sys.executable, str(ROOT / "stages/train.py")]
    done = subprocess.run(command, cwd=tmp_path / "both", env=slurm, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    run_stage("train", tmp_path / "alone")
    pd.testing.assert_frame_equal(read_history(tmp_path / "both"), read_history(tmp_path / "alone"), rtol=1e-4)
