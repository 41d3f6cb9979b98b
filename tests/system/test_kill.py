"""kill -9 at random points of every stage: nothing half-written is taken for whole, and the results stay the same."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import STAGES, write_params

KILLS_PER_STAGE = 4  # twenty in all

DRIVER = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from small_project import STAGES, run_stage
from pathlib import Path
import torch, lightning.fabric, mlflow, sklearn.metrics, matplotlib.figure, cv2, pandas
torch.set_num_threads(1)

def start(stage, folder):
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            run_stage(stage, folder)
        except BaseException as end:
            os.write(2, repr(end).encode())
            os._exit(1)
        os._exit(0)
    return child

def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

whole, killed, kills, seed = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
dice, died = random.Random(seed), 0
for stage in STAGES:
    began = time.monotonic()
    assert finish(start(stage, whole)) == 0, f"{stage} failed without a kill"
    seconds = time.monotonic() - began
    for share in [(index + dice.random()) / kills for index in range(kills)]:
        child = start(stage, killed)
        time.sleep(share * seconds)
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        died += finish(child) == -signal.SIGKILL
    assert finish(start(stage, killed)) == 0, f"{stage} failed after kills"
print("died", died)
"""


def outputs(folder: Path) -> dict[str, str]:
    """Hash of everything that a run determines; times, run ids, the runs' own dates and stores are not among it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith((".resume", ".cache", ".mlflow.lock", "mlartifacts", "mlflow.db")):
            continue
        content = path.read_bytes()
        if name in ("reports/mlflow_run.json", "params.yaml") or name.startswith("reports/model_card"):
            continue
        if name == "reports/history.csv":
            content = b"\n".join(
                b",".join(line.split(b",")[:2] + line.split(b",")[3:]) for line in content.split(b"\n")
            )
        if name.endswith("model.json"):
            model = json.loads(content)
            model["training"]["best"].pop("seconds", None)
            content = json.dumps(model).encode()
        if path.suffix != ".png":
            found[name] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.slow
def test_killed_stages_run_again_to_the_same_end(tmp_path):
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        write_params(folder)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(Path(__file__).parents[1]), *map(str, folders), str(KILLS_PER_STAGE), "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:] + (tmp_path / "log").read_text()[-2000:]
    assert int(done.stdout.split()[-1]) >= KILLS_PER_STAGE * len(STAGES) // 2, "the kills came too late to prove much"
    whole, killed = (outputs(folder) for folder in folders)
    assert killed == whole
    assert not [name for name in killed if ".part" in name]
    assert not list((folders[1] / ".resume").rglob("state*"))
