import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from small_project import PULMO, commit, run
from toy_project import PARAMS, STAGE, make_toy

# Where it is told to, it says who it is, and then takes longer than any test.
SLOW = """
import os, time
if "STARTED" in os.environ:
    from pulmo.base.process import end_by_exception
    import signal
    end_by_exception(signal.SIGTERM)
    with open(os.environ["STARTED"], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
"""


def list_experiments(folder: Path) -> str:
    """Names and commits of the experiments."""
    return run(folder, "git", "for-each-ref", "refs/exps")


@pytest.mark.slow
def test_a_recipe_that_is_ended_ends_its_stage_and_keeps_the_earlier_result(tmp_path):
    folder = make_toy(tmp_path / "toy", stage=f"{STAGE}{SLOW}", params=f"{PARAMS}  weights: none\n")
    (folder / "recipes").mkdir()
    (folder / "recipes/protocols.yaml").write_text("honest: {}\n")
    (folder / "recipes/r.yaml").write_text("protocol: honest\npublished: {}\nparams: {train: {lr: 0.5}}\n")
    commit(folder, "A recipe")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "r", "-S", "train.lr=0.2")
    earlier = list_experiments(folder)
    started = tmp_path / "started"
    process = subprocess.Popen(
        [*PULMO, "recipe", "run", "r"],
        cwd=folder,
        env={**os.environ, "STARTED": str(started)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 180
    while not (started.exists() and started.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.1)
    below = psutil.Process(process.pid).children(recursive=True)
    stage = int(started.read_text())
    assert stage in {child.pid for child in below}
    process.terminate()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert not psutil.wait_procs(below, timeout=30)[1], "what it started outlives it"
    assert list_experiments(folder) == earlier
