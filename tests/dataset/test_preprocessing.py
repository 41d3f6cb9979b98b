"""From a folder of films to one array: whole or absent, the same however it was made."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from film_files import dicom
from PIL import Image
from small_project import permissions_bind

from pulmo.base import files
from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.base.places import own_place
from pulmo.dataset import preprocessing
from pulmo.dataset.preprocessing import FILMS_PER_WORKER, Processed, process_films
from pulmo.images.decode import read_image
from pulmo.images.film_store import FilmStore
from pulmo.images.stamp import decoding_stamp

SIZE = 32
FILES = ("images.npy", "index.csv", "rejected.csv")


def draw_films(raw: Path, count: int) -> list[str]:
    """Write films of different sizes and kinds; return their paths, not sorted."""
    rng = np.random.default_rng(5)
    paths = []
    for number in range(count):
        path = f"train/{('NORMAL', 'PNEUMONIA')[number % 2]}/film{number}.{('jpeg', 'png')[number % 3 == 0]}"
        coarse = rng.integers(0, 256, (5, 6 + number % 4), dtype=np.uint8)
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((60 + number, 50)).save(raw / path)
        paths.append(path)
    return paths[::-1]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "processed"


def describe(raw: Path, paths: list[str]) -> pd.DataFrame:
    """What the film table says of the films as they are now; nothing of one that is not there."""
    there = [(raw / path).is_file() for path in paths]
    hashes = [sha256_file(raw / path) if here else "0" * 64 for path, here in zip(paths, there, strict=True)]
    sizes = [(raw / path).stat().st_size if here else 0 for path, here in zip(paths, there, strict=True)]
    return pd.DataFrame({"path": paths, "sha256": hashes, "bytes": sizes})


def run(
    raw: Path, paths: list[str], folder: Path, workers: int = 1, max_rejected: int = 0, store: Path | None = None
) -> Processed:
    with FilmStore(SIZE, "squash", store, most=0.1) as films:
        return process_films(raw, describe(raw, paths), films, workers, max_rejected, folder)


def damage(raw: Path, paths: list[str]) -> None:
    for path in paths:
        (raw / path).write_bytes((raw / path).read_bytes()[:-40])


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def assert_nothing_whole(folder: Path) -> None:
    assert not (folder / "index.csv").exists()
    assert not (folder / "images.npy").exists()
    assert not list(folder.glob(".*")), "temporary files are left"


def test_array_and_index_hold_every_film_sorted_by_path(
    raw: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = draw_films(raw, 13)
    assert run(raw, paths, folder) == Processed(13, ())
    images = np.load(folder / "images.npy", mmap_mode="r")
    assert (images.shape, images.dtype) == ((13, SIZE, SIZE), np.uint8)
    index = pd.read_csv(folder / "index.csv")
    assert list(index.columns) == ["row", "path"]
    assert index.row.tolist() == list(range(13))
    assert index.path.tolist() == sorted(paths)
    for row, path in zip(index.row, index.path, strict=True):
        np.testing.assert_array_equal(images[row], read_image(raw / path, SIZE, "squash"))
    assert (folder / "rejected.csv").read_text() == "path,reason\n"
    assert names(folder) == sorted(FILES)
    assert "13 films of 32 x 32 pixels will take 0.0 MB in" in capsys.readouterr().out


def test_rejected_films_leave_no_gap(raw: Path, folder: Path) -> None:
    paths = sorted(draw_films(raw, 20))
    bad = [paths[0], paths[7], paths[8], paths[19]]
    damage(raw, bad)
    done = run(raw, paths, folder, max_rejected=4)
    assert done.films == 16
    assert [path for path, _ in done.rejected] == bad
    images, index = np.load(folder / "images.npy", mmap_mode="r"), pd.read_csv(folder / "index.csv")
    assert images.shape == (16, SIZE, SIZE)
    assert (folder / "images.npy").stat().st_size == images.offset + images.nbytes
    assert index.path.tolist() == [path for path in paths if path not in bad]
    for row, path in zip(index.row, index.path, strict=True):
        np.testing.assert_array_equal(images[row], read_image(raw / path, SIZE, "squash"))
    rejected = pd.read_csv(folder / "rejected.csv")
    assert list(rejected.itertuples(index=False, name=None)) == list(done.rejected)
    assert rejected.reason.str.contains("truncated|cannot be decoded").all()


def test_result_does_not_depend_on_the_workers(raw: Path, tmp_path: Path) -> None:
    paths = draw_films(raw, 3 * FILMS_PER_WORKER + 1)
    damage(raw, paths[5:8])
    for name, workers in (("alone", 1), ("together", 3)):
        run(raw, paths, tmp_path / name, workers, max_rejected=3)
    for file in FILES:
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "together" / file).read_bytes()


@pytest.mark.parametrize(("films", "workers", "started"), [(127, 8, 0), (255, 8, 0), (256, 8, 2), (600, 3, 3)])
def test_few_films_start_few_processes(
    films: int, workers: int, started: int, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = pretend_pool(monkeypatch)
    draw_films(raw, 1)
    list(preprocessing._decode_films([source(raw)] * films, FilmStore(SIZE, "pad"), workers))
    assert [pool.processes for pool in pools] == ([started] if started else [])


def source(raw: Path) -> preprocessing._Source:
    file = raw / "train/NORMAL/film0.png"
    return preprocessing._Source("train/NORMAL/film0.png", file, sha256_file(file), file.stat().st_size)


class PretendPool:
    """A pool that answers in this process, and counts what it was given."""

    def __init__(self, processes: int, context: Any, initializer: Callable[[], None]) -> None:
        self.processes, self.given = processes, 0

    def __enter__(self) -> "PretendPool":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        self.given += 1
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def pretend_pool(monkeypatch: pytest.MonkeyPatch) -> list[PretendPool]:
    pools: list[PretendPool] = []

    def start(*arguments: Any, **named: Any) -> PretendPool:
        pools.append(PretendPool(*arguments, **named))
        return pools[-1]

    monkeypatch.setattr(preprocessing, "ProcessPoolExecutor", start)
    return pools


def test_results_in_flight_are_bounded(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = pretend_pool(monkeypatch)
    draw_films(raw, 1)
    results = preprocessing._decode_films([source(raw)] * 1000, FilmStore(SIZE, "pad"), 4)
    for taken in range(1, 800):
        next(results)
        assert pools[0].given <= -(-taken // preprocessing.CHUNK) + 2 * 4


def test_memory_does_not_grow_with_the_films(raw: Path, folder: Path) -> None:
    draw_films(raw, 1)
    many = describe(raw, ["train/NORMAL/film0.png"] * 420)

    def peak(films: int) -> int:
        tracemalloc.start()
        process_films(raw, many.head(films), FilmStore(256, "squash"), 1, 0, folder)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(8)
    array = 256 * 256 * 400
    assert peak(420) - peak(20) < array / 50


def test_too_many_rejected_films_are_listed_and_left_for_reading(raw: Path, folder: Path) -> None:
    paths = sorted(draw_films(raw, 30))
    run(raw, paths, folder)
    damage(raw, paths[:13])
    (folder / "images.npy").unlink()
    with pytest.raises(UserError, match="13 of 30 films cannot be decoded") as caught:
        run(raw, paths, folder, max_rejected=12)
    message = str(caught.value)
    assert "\n" not in caught.value.message
    assert "preprocess.max_rejected allows 12" in message
    assert all(f"{path} (" in message for path in paths[:10])
    assert paths[10] not in message
    assert "; and 3 more\n\nhint: all are listed in" in message
    assert pd.read_csv(folder / "rejected.csv").path.tolist() == paths[:13]
    (folder / "rejected.csv").unlink()
    assert_nothing_whole(folder)


def test_not_one_film_is_an_error_whatever_is_allowed(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 3)
    damage(raw, paths)
    with pytest.raises(UserError, match=r"3 of 3 films cannot be decoded.* \(.*\)\n\nhint: all are listed"):
        run(raw, paths, folder, max_rejected=99)
    assert_nothing_whole(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_missing_film_is_named(workers: int, raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 2 * FILMS_PER_WORKER)
    (raw / paths[3]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        run(raw, paths, folder, workers)
    assert caught.value.filename == str(raw / paths[3])
    assert_nothing_whole(folder)


def test_failure_takes_the_old_index_away(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 4)
    run(raw, paths, folder)
    damage(raw, paths[:1])
    with pytest.raises(UserError, match="1 of 4 films"):
        run(raw, paths, folder)
    assert not (folder / "index.csv").exists()


@pytest.mark.skipif(
    not Path("/dev/full").exists(),
    reason="only Linux has /dev/full, a disk that is full on demand; runs on every Linux",
)
@pytest.mark.parametrize("full", FILES)
def test_disk_that_fills_up_names_the_file(full: str, raw: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = draw_films(raw, 9)

    @contextmanager
    def place(path: Path) -> Iterator[Path]:
        with own_place(path) as own:
            if path.name == full:
                own.symlink_to("/dev/full")
            yield own

    monkeypatch.setattr(files, "own_place", place)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run(raw, paths, folder)
    assert caught.value.filename == str(folder / full)
    assert not (folder / "index.csv").exists()
    assert not list(folder.glob(".*"))


def test_disk_too_small_is_told_before_any_work(raw: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 2_000_000, 2_000_000))
    with pytest.raises(OSError, match=r"10\.2 MB needed, only 2\.0 MB free") as caught:
        run(raw, ["film"] * 10_000, folder)
    assert caught.value.filename == str(folder / "images.npy")


def test_unusable_folder_names_it(raw: Path, tmp_path: Path) -> None:
    paths = draw_films(raw, 2)
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="data"):
        run(raw, paths, tmp_path / "data" / "processed")


@permissions_bind
def test_read_only_folder_names_it(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 2)
    folder.mkdir(parents=True, mode=0o500)
    with pytest.raises(PermissionError, match="processed"):
        run(raw, paths, folder)


def kill_a_worker() -> None:
    """Wait until this process has one, and kill it."""
    own = psutil.Process()
    while not (workers := [child for child in own.children() if "spawn_main" in " ".join(child.cmdline())]):
        time.sleep(0.01)
    workers[0].kill()


def test_killed_worker_is_one_line(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 2 * FILMS_PER_WORKER)
    Thread(target=kill_a_worker, daemon=True).start()
    with pytest.raises(UserError, match=r"was killed.*\n\nhint: lower preprocess\.workers \(it was 2 processes\)"):
        run(raw, paths, folder, workers=2)
    assert_nothing_whole(folder)


def test_worker_killed_while_another_starts_is_one_line(
    raw: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw_films(raw, 2 * FILMS_PER_WORKER)

    def start(process: BaseProcess) -> None:
        """Fail as where a process of the pool is killed at this moment, and its pipes are closed."""
        raise OSError("handle is closed")

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(UserError, match=r"was killed.*\n\nhint: lower preprocess\.workers"):
        run(raw, paths, folder, workers=2)
    assert_nothing_whole(folder)


SCRIPT = """
import sys
from pathlib import Path
import pandas as pd
from pulmo.base.files import sha256_file
from pulmo.dataset import preprocessing
from pulmo.images.film_store import FilmStore
if __name__ == "__main__":
    preprocessing.FILMS_PER_WORKER = 10
    raw, folder, films, workers = *map(Path, sys.argv[1:4]), int(sys.argv[4])
    store = FilmStore(32, "squash", folder.parent / "store", 0.1)
    preprocessing.process_films(raw, pd.read_csv(films), store, workers, 0, folder)
"""


def wait_for_reader(pipe: Path, process: "subprocess.Popen[bytes]") -> int:
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which means that nobody reads yet
                raise
            time.sleep(0.01)
    pytest.fail("the process ended before it came to the last film")


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_midway_leaves_nothing_that_looks_whole(workers: int, raw: Path, folder: Path, tmp_path: Path) -> None:
    paths = draw_films(raw, 40)
    run(raw, paths, tmp_path / "expected")
    shutil.copytree(tmp_path / "expected", folder)
    describe(raw, paths).to_csv(tmp_path / "films.csv", index=False)
    stuck = raw / max(paths)
    film = stuck.read_bytes()
    stuck.unlink()
    os.mkfifo(stuck)  # the last film never ends, so that the kill always comes midway
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        str(tmp_path / "script.py"),
        str(raw),
        str(folder),
        str(tmp_path / "films.csv"),
        str(workers),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        writer = wait_for_reader(stuck, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    assert len(children) >= (2 if workers == 2 else 0)
    assert not psutil.wait_procs(children, timeout=20)[1], "workers outlive their parent"
    os.close(writer)
    assert list(folder.glob(".images.npy.*.part"))
    assert not (folder / "index.csv").exists()

    stuck.unlink()
    stuck.write_bytes(film)
    stored = run(raw, paths, folder, store=folder.parent / "store").stored
    assert stored == 32 if workers == 1 else stored <= 32, (
        "all but the last of five tasks, of which some may be on their way"
    )
    for file in FILES:
        assert (folder / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()
    assert names(folder) == sorted(FILES)


@pytest.mark.real
def test_originals_give_the_same_array_from_two_processes(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocessing, "FILMS_PER_WORKER", 70)
    paths = [str(film.relative_to(originals)) for film in originals.rglob("*.jpeg")]
    assert process_films(originals, describe(originals, paths), FilmStore(224, "pad"), 2, 0, tmp_path).films == 140
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    for row, path in islice(enumerate(sorted(paths)), 0, 140, 20):
        np.testing.assert_array_equal(images[row], read_image(originals / path, 224, "pad"))


def test_films_are_rejected_or_noted_by_what_they_show(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 4)
    Image.new("L", (64, 64), 9).save(raw / "black.png")
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    (raw / "noted.dcm").write_bytes(dicom(stored, WindowCenter=0, WindowWidth=0))
    done = run(raw, [*paths, "black.png", "noted.dcm"], folder, max_rejected=1)
    assert done.films == 5
    assert [path for path, _ in done.rejected] == ["black.png"]
    assert pd.read_csv(folder / "rejected.csv").path.tolist() == ["black.png"]
    assert [path for path, _ in done.noted] == ["noted.dcm"]
    assert "stretched instead" in done.noted[0][1]


def test_films_that_were_added_alone_are_decoded(raw: Path, folder: Path, tmp_path: Path) -> None:
    paths, store = sorted(draw_films(raw, 30)), tmp_path / "store"
    (raw / "noted.dcm").write_bytes(
        dicom(np.arange(4096, dtype=np.uint16).reshape(64, 64), WindowCenter=0, WindowWidth=0)
    )
    paths.append("noted.dcm")
    run(raw, paths[5:], tmp_path / "earlier", store=store)
    assert run(raw, paths, tmp_path / "expected").stored == 0
    shutil.rmtree(tmp_path / "earlier")
    films = describe(raw, paths)
    for path in paths[5:]:  # could no longer be decoded
        (raw / path).write_bytes(bytes((raw / path).stat().st_size))
    with FilmStore(SIZE, "squash", store, most=0.1) as known:
        done = process_films(raw, films, known, 1, 0, folder)
    assert (done.films, done.stored, done.rejected) == (31, 26, ())
    assert [path for path, _ in done.noted] == ["noted.dcm"], "what is noted of a film is kept with it"
    for file in FILES:
        assert (folder / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_another_size_fit_or_decoder_finds_nothing(raw: Path, tmp_path: Path) -> None:
    (path,) = draw_films(raw, 1)
    run(raw, [path], tmp_path / "out", store=tmp_path)
    sha256 = sha256_file(raw / path)
    assert sha256 in FilmStore(SIZE, "squash", tmp_path, 0.1)
    assert sha256 not in FilmStore(SIZE, "pad", tmp_path, 0.1)
    assert sha256 not in FilmStore(SIZE + 1, "squash", tmp_path, 0.1)
    (stored,) = tmp_path.glob(f"*{decoding_stamp()}*")
    stored.rename(tmp_path / stored.name.replace(decoding_stamp(), "another"))
    assert sha256 not in FilmStore(SIZE, "squash", tmp_path, 0.1)


def test_a_film_that_changed_since_it_was_listed_is_named(raw: Path, folder: Path) -> None:
    paths = draw_films(raw, 4)
    films = describe(raw, paths)
    (raw / paths[1]).write_bytes((raw / paths[2]).read_bytes())
    with pytest.raises(UserError, match=f"{paths[1]} has changed since it was listed"):
        process_films(raw, films, FilmStore(SIZE, "squash"), 1, 0, folder)
    assert_nothing_whole(folder)


def test_a_store_that_cannot_be_written_costs_nothing_but_time(raw: Path, folder: Path, tmp_path: Path) -> None:
    paths = draw_films(raw, 5)
    (tmp_path / "store").write_text("a file where the folder should be")
    assert run(raw, paths, folder, store=tmp_path / "store").films == 5
