import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmo.base import files
from pulmo.base.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "report.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(ValueError, match=r"not JSON compliant|serializ"):
        files.write_bytes(path, json.dumps(float("nan"), allow_nan=False).encode())

    def fail_midway() -> None:
        with files.whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert files.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_its_file_name(tmp_path, monkeypatch):
    def no_space(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(tmp_path / "big.npy", b"1")
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_nothing_that_looks_whole(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from pulmo.base.files import whole_file, whole_folder\n"
        "with whole_folder(Path('folder')) as folder, whole_file(Path('file')) as file:\n"
        "    file.write_text('half'); (folder / 'x').write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == -9
    assert {re.sub(r"\.\w{8}\.", ".", path.name) for path in tmp_path.iterdir()} == {".file.part", ".folder.part"}
    with files.whole_folder(tmp_path / "folder") as folder:
        assert not list(folder.iterdir())
    files.write_bytes(tmp_path / "file", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


WRITER = (
    "import sys; from pathlib import Path; from pulmo.base.files import KIND\n"
    "with KIND(Path('out')) as own:\n"
    "    (own / 'x' if own.is_dir() else own).write_text('first')\n"
    "    print(flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_a_living_writer_is_not_disturbed_and_the_last_to_end_stands(kind, tmp_path):
    script = WRITER.replace("KIND", kind)
    command = [sys.executable, "-c", script]
    out = tmp_path / "out"
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        subprocess.run([sys.executable, "-c", script.replace("first", "second")], cwd=tmp_path, input=b"", check=True)
        assert (out / "x" if out.is_dir() else out).read_text() == "second"
        first.stdin.close()
        assert first.wait() == 0
    assert (out / "x" if out.is_dir() else out).read_text() == "first"
    assert list(tmp_path.iterdir()) == [out]


def test_only_what_dead_processes_left_of_the_same_file_is_removed(tmp_path):
    script = [sys.executable, "-c", WRITER.replace("KIND", "whole_file")]
    with subprocess.Popen(script, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        killed.stdout.readline()
        killed.kill()
    other = tmp_path / ".out.csv.01234567.part"
    other.mkdir()
    (tmp_path / ".out.01234567.part").symlink_to(other)
    with subprocess.Popen(script, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        living.stdout.readline()
        (own,) = (path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink() and path != other)
        files.write_bytes(tmp_path / "out", b"here")
        assert {path.name for path in tmp_path.iterdir()} == {"out", own.name, other.name, ".out.01234567.part"}
        living.communicate()


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    script = (
        "import sys; from pathlib import Path; from pulmo.base.files import whole_folder, write_bytes\n"
        "for turn in range(10):\n"
        "    write_bytes(Path('file'), sys.argv[1].encode() * 100_000)\n"
        "    with whole_folder(Path('folder')) as folder:\n"
        "        for name in 'abc': (folder / name).write_text(sys.argv[1])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, letter], cwd=tmp_path) for letter in "123"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert len((tmp_path / "file").read_bytes()) == 100_000
    texts = [path.read_text() for path in sorted((tmp_path / "folder").iterdir())]
    assert texts in (["1"] * 3, ["2"] * 3, ["3"] * 3)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "reports").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"exists|directory") as caught:
        files.write_bytes(tmp_path / "reports" / "metrics.json", b"1")
    assert caught.value.filename == str(tmp_path / "reports")


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    target = tmp_path / "raw"
    for name in ("first", "second"):
        with files.whole_folder(target) as folder:
            (folder / name).touch()
    assert [path.name for path in target.iterdir()] == ["second"]

    def fail_midway() -> None:
        with files.whole_folder(target) as folder:
            (folder / "third").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert [path.name for path in target.iterdir()] == ["second"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_between_two_folders_loses_neither(tmp_path, renames):
    target = tmp_path / "raw"
    with files.whole_folder(target) as folder:
        (folder / "first").touch()
    code = (
        "import os; from pathlib import Path; from pulmo.base.files import whole_folder\n"
        "replace, left = Path.replace, [RENAMES]\n"
        "def kill(self, target):\n"
        "    if not left[0]: os.kill(os.getpid(), 9)\n"
        "    left[0] -= 1; return replace(self, target)\n"
        "Path.replace = kill\n"
        "with whole_folder(Path('raw')) as folder: (folder / 'second').touch()\n"
        "os.kill(os.getpid(), 9)"
    ).replace("RENAMES", str(renames))
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == -9
    with pytest.raises(KeyboardInterrupt), files.whole_folder(target):
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["second" if renames == 2 else "first"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_failed_swap_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    with files.whole_folder(tmp_path / "raw") as folder:
        (folder / "first").touch()
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.parent.suffix == ".part":
            raise OSError(errno.EIO, "Input/output error", str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"), files.whole_folder(tmp_path / "raw") as folder:
        (folder / "second").touch()
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_json_takes_numpy_and_says_null_for_what_is_no_number(tmp_path):
    content = {
        "a": np.float64(0.1),
        "b": np.array([1, 2]),
        "c": float("nan"),
        "d": (np.bool_(True), None),
        5: Path("x"),
    }
    files.write_json(tmp_path / "x.json", content)
    assert files.read_json(tmp_path / "x.json") == {"a": 0.1, "b": [1, 2], "c": None, "d": [True, None], "5": "x"}


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "metrics.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"metrics\.json is not valid JSON"):
        files.read_json(tmp_path / "metrics.json")


def test_a_spreadsheet_runs_no_name_and_every_name_comes_back(tmp_path):
    names = ["=1+1.png", "+a", "-1", "@x", "\tx", "'=x", "''-", "'quoted", "a=b", "", "007"]
    table = pd.DataFrame({"path": names, "logit": -1.5})
    files.write_csv(tmp_path / "x.csv", table)
    written = pd.read_csv(tmp_path / "x.csv", dtype={"path": str}, keep_default_na=False)
    assert not written.path.str.match(r"[=+\-@\t\r]").any()
    assert written.path[9] == ""
    assert written.path[8] == "a=b"
    assert (written.logit == -1.5).all()
    assert files.unquote(written).equals(table)


def test_csv_keeps_every_digit(tmp_path):
    table = pd.DataFrame({"x": np.random.default_rng(0).random(100)})
    files.write_csv(tmp_path / "x.csv", table)
    assert pd.read_csv(tmp_path / "x.csv", float_precision="round_trip").equals(table)


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x").startswith("ba7816bf")
