import errno
import json
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
    assert {path.name for path in tmp_path.iterdir()} == {".file.part", ".folder.part"}
    with files.whole_folder(tmp_path / "folder") as folder:
        assert not list(folder.iterdir())
    files.write_bytes(tmp_path / "file", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


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
        if self.name == ".raw.part":
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
