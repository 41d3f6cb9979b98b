"""Files that a killed training goes on from: a folder per task, named after everything that determines the result."""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pulmo.base.code import PACKAGE, reached_code
from pulmo.base.files import SEAL_BYTES, is_sealed, seal, sha256_file, whole_file
from pulmo.training.launch import is_first_process
from pulmo.training.rows import Films

_STALE_DAYS = 14
_PLACES = ("devices", "num_nodes", "strategy")  # settings that change the result by its rounding alone


@contextmanager
def resumable(root: Path, settings: Mapping[str, Any], data_sha256: str, films: Sequence[Films] = ()) -> Iterator[Path]:
    """Yield the folder under `root` for this task, which an earlier, killed process may have filled; on success
    it is deleted. Folders that nobody touched for 14 days go too. Where another process works on the same task, as two
    experiments that differ in evaluate alone do, waits until it has ended. Of the processes of one training the first
    does all that; the others get the folder's name.

    The task is the settings, the images (`data_sha256`), which `films` of them, the code and the weights to start from.
    On how many devices it runs, and how they share the work, is no part of it: others go on with what is there.
    """
    weights = Path(str(settings.get("weights", "none")))
    code = reached_code(PACKAGE / "training/__init__.py")
    inputs = [sha256_file(file) for file in (*code, weights) if file.is_file()]
    chosen = [hashlib.sha256(part.tobytes()).hexdigest() for split in films for part in (split.rows, split.targets)]
    own = {name: value for name, value in settings.items() if name not in _PLACES}
    facts = [own, data_sha256, chosen, torch.__version__, inputs]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = root / key
    if not is_first_process():
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in root.iterdir():
        if old.is_dir() and old != folder and time.time() - old.stat().st_mtime > _STALE_DAYS * 86400:
            shutil.rmtree(old, ignore_errors=True)
    lock = FileLock(folder / "lock")
    _wait_for(lock, folder)
    try:
        yield folder
        for file in folder.iterdir():  # before the lock, or who waits for it would go on from what is left
            if file.name != "lock":
                file.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        if folder.exists() and {file.name for file in folder.iterdir()} <= {"lock"}:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()  # last, or the lock of who waited for it would be removed


def _wait_for(lock: FileLock, folder: Path) -> None:
    announced = False
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)  # who held the lock may have removed it
        try:
            lock.acquire(timeout=0)
        except FileNotFoundError:
            continue
        except Timeout:
            if not announced:
                print("the same training is already running; waiting for it to end", flush=True)
            announced = True
            time.sleep(1)


class Checkpoint:
    """The state after the last finished epoch in one file, written in the background while the next epoch runs."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "state.pt"
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none that is whole."""
        if not self.file.exists():
            return None
        if not is_sealed(self.file):
            print(f"{self.file} is damaged: training starts from the first epoch", flush=True)
            return None
        content = io.BytesIO(self.file.read_bytes())
        content.truncate(self.file.stat().st_size - SEAL_BYTES)
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Take a copy of the state now and write it soon; waits for the copy before it, and raises its error."""
        self.wait()
        self._pending = self._writer.submit(self._write, _snapshot(state))

    def wait(self) -> None:
        """Return when what was saved is on disk."""
        if self._pending is not None:
            self._pending.result()

    def _write(self, state: dict[str, Any]) -> None:
        with whole_file(self.file) as temporary:
            torch.save(state, temporary)
            seal(temporary)  # in the file itself: of two, a kill could leave one from the epoch before


def _snapshot(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_snapshot(item) for item in value]
    return value
