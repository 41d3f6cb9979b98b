"""Values that outlive the process that kept them: whole or absent, whoever else reads, writes or deletes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import permissions_bind

from pulmo.base.blocks import Blocks

MOST = 10**8


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def value(number: int) -> bytes:
    return str(number).encode() * 500


def fill(root: Path, numbers: range, kind: str = "kind", most: int = MOST) -> None:
    with Blocks(root, kind, most) as store:
        for number in numbers:
            store.put(key(number), value(number))


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.block"), key=lambda file: file.stat().st_mtime_ns)


def bytes_of(root: Path) -> int:
    return sum(file.stat().st_size for file in files(root))


def test_values_are_there_for_the_next_process(tmp_path: Path) -> None:
    fill(tmp_path, range(50))
    store = Blocks(tmp_path, "kind", MOST)
    assert [store.get(key(number)) for number in range(50)] == [value(number) for number in range(50)]
    assert key(50) not in store
    assert store.get(key(50)) is None
    assert Blocks(tmp_path, "other", MOST).get(key(1)) is None


def test_what_is_damaged_is_absent_and_the_rest_is_not(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (file,) = files(tmp_path)
    content = file.read_bytes()
    for place in range(0, len(content), 97):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        store = Blocks(tmp_path, "kind", MOST)
        got = [store.get(key(number)) for number in range(3)]
        assert set(got) <= {value(0), value(1), value(2), None}
        assert got.count(None) >= 1, f"byte {place} counts for nothing"
    for end in range(0, len(content), 97):
        file.write_bytes(content[:end])
        store = Blocks(tmp_path, "kind", MOST)
        whole = end // (len(content) // 3)
        assert [store.get(key(number)) is not None for number in range(3)] == [number < whole for number in range(3)]


def test_a_bound_in_bytes_holds_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    fill(tmp_path, range(10), "old", most=60_000)
    for file in files(tmp_path):
        os.utime(file, (1, 1))
    fill(tmp_path, range(10, 20), most=60_000)
    for age, file in enumerate(files(tmp_path / "kind")):
        os.utime(file, (100 + age, 100 + age))
    with Blocks(tmp_path, "kind", 60_000) as store:
        assert store.get(key(10)) == value(10)
        for number in range(20, 100):
            store.put(key(number), value(number))
            assert bytes_of(tmp_path) <= 60_000
        again = Blocks(tmp_path, "kind", 60_000)
    assert not files(tmp_path / "old")
    assert again.get(key(99)) == value(99)
    assert again.get(key(19)) is None


def test_a_value_that_was_just_used_stays_longer_than_one_that_was_not(tmp_path: Path) -> None:
    fill(tmp_path, range(4), most=3000)
    for age, file in enumerate(files(tmp_path)):
        os.utime(file, (100 + age, 100 + age))
    with Blocks(tmp_path, "kind", 3000) as store:
        assert store.get(key(0)) == value(0)
        for number in (7, 8, 9):
            store.put(key(number), value(number))
    store = Blocks(tmp_path, "kind", 3000)
    assert store.get(key(0)) == value(0)
    assert store.get(key(1)) is None


def test_two_processes_keep_values_at_once(tmp_path: Path) -> None:
    program = (
        "import hashlib, sys\nfrom pathlib import Path\nfrom pulmo.base.blocks import Blocks\n"
        "with Blocks(Path(sys.argv[1]), 'kind', 10**8) as store:\n    for number in range(*map(int, sys.argv[2:])):\n"
        "        store.put(hashlib.sha256(str(number).encode()).digest(), str(number).encode() * 500)\n"
    )
    ranges = ((0, 300), (200, 500))
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *map(str, ends)]) for ends in ranges]
    assert [process.wait(60) for process in running] == [0, 0]
    store = Blocks(tmp_path, "kind", MOST)
    assert all(store.get(key(number)) == value(number) for number in range(500))


def test_the_folder_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    with Blocks(tmp_path, "kind", MOST) as store:
        shutil.rmtree(tmp_path / "kind")
        assert store.get(key(1)) is None
        store.put(key(9), value(9))
        assert store.get(key(9)) == value(9)
    assert Blocks(tmp_path, "kind", MOST).get(key(9)) == value(9)


def test_a_disk_with_no_room_to_spare_keeps_nothing(tmp_path: Path) -> None:
    with Blocks(tmp_path, "kind", MOST) as store:
        store.reserve = shutil.disk_usage(tmp_path).total
        store.put(key(1), value(1))
        assert store.get(key(1)) is None
    assert not files(tmp_path)


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_no_folder_and_no_bytes_mean_no_store(root: str | None, tmp_path: Path) -> None:
    with Blocks(root and tmp_path / root, "kind", 0 if root else MOST) as store:
        store.put(key(1), value(1))
        assert store.get(key(1)) is None
    assert list(tmp_path.iterdir()) == []


@permissions_bind
def test_a_folder_that_refuses_writes_is_no_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    fill(tmp_path, range(2))
    tmp_path.chmod(0o700)
    assert not files(tmp_path)


def test_a_file_that_another_process_removes_while_room_is_made_does_not_end_the_storing(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/gone.block").symlink_to("nowhere")
    monkeypatch.setattr(Path, "exists", lambda path: True)  # so it was a moment ago
    with Blocks(tmp_path, "kind", MOST) as store:
        store.put(key(1), value(1))
        assert store.get(key(1)) == value(1)
