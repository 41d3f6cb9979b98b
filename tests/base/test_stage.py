import os
import platform
import re
import signal
import subprocess
import sys

import pytest

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.process import run_stage, usable_cores
from pulmo.cli.answers import find_place

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="macOS and musl have neither mallopt nor malloc_trim, and what is tested does nothing there; runs on every "
    "Linux with glibc",
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("params.yaml: unknown key x", "remove it"), "error: params.yaml: unknown key x\n\nhint: remove it"),
        (
            OSError(28, "No space left on device", "data/x.npy"),
            "error: data/x.npy: No space left on device\n\nhint: check free",
        ),
        (OSError("odd"), "error: odd\n\nhint: check free space"),
    ],
)
def test_what_a_user_can_cause_is_a_message_and_a_hint(error, line):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_stage(main)
    assert str(end.value.code).startswith(line)
    assert str(end.value.code).count("\n\nhint: ") == 1


@pytest.mark.parametrize("bug", ["np.zeros(3) + np.zeros(4)", "{}['bug']"])
def test_a_bug_in_a_stage_keeps_its_traceback(bug):
    program = f"import numpy as np\nfrom pulmo.base.process import run_stage\nrun_stage(lambda: {bug})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert not re.search("^(error|hint): ", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_stage_cleans_up(number, code, tmp_path):
    program = (
        "import time\nfrom pathlib import Path\nfrom pulmo.base.files import whole_file\n"
        "from pulmo.base.process import run_stage\n"
        "def main():\n    with whole_file(Path('out')) as file:\n        file.touch(); print('ready', flush=True)\n"
        "        time.sleep(60)\nrun_stage(main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits that it is ignored
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, number)
    assert process.returncode == code
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_how_to_go_on(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_stage(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; run the same command to go on\n"


@needs_glibc
def test_a_stage_does_not_fetch_the_same_memory_again_and_again():
    program = (
        "import resource, sys\nimport numpy as np\nfrom pulmo.base.process import run_stage\n"
        "def main():\n    sizes = []\n    for turn in range(20):\n        np.ones(10_000_000)\n"
        "        sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n    print(sizes[-1] - sizes[0])\n"
        "run_stage(main) if 'stage' in sys.argv else main()"
    )

    def count_pages(*how: str) -> int:
        run = [sys.executable, "-c", program, *how]
        return int(subprocess.run(run, capture_output=True, check=True, text=True).stdout)

    assert count_pages("stage") < 100 < count_pages()


@needs_glibc
def test_a_stage_gives_back_what_it_freed_when_it_is_told_to():
    program = (
        "import psutil\nimport numpy as np\nfrom pulmo.base.process import release_memory, run_stage\n"
        "def main():\n    held = [np.ones(2_500_000) for _ in range(10)]\n    last = np.ones(1000)\n    del held\n"
        "    before = psutil.Process().memory_info().rss\n    release_memory()\n"
        "    print(before - psutil.Process().memory_info().rss)\nrun_stage(main)"
    )
    given = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert int(given) > 150e6, "of 200 MB that were freed"


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert usable_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_the_project_is_found_from_its_subfolders(tmp_path, monkeypatch):
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    below = tmp_path / "docs/pictures"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert paths.project_root() == below
    (tmp_path / ".dvc").mkdir()
    assert paths.project_root() == tmp_path
    assert find_place(None).folder == tmp_path / "models/package"
    monkeypatch.setenv("DVC_ROOT", str(below))
    assert paths.project_root() == below
