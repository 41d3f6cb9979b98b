"""DVC of one checkout: its command line in a process of its own, its queue and its files by its Python objects."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from pulmo.base.addresses import hide_secrets
from pulmo.base.errors import UserError
from pulmo.base.git import run_git

WORKSPACE = "workspace"  # the revision that is not committed
GRACE = 60.0  # seconds that a stopped stage has to end its run
Tasks = dict[str, tuple[str, str]]  # by hash: name, and Queued, Running, Failed or Success


class Dvc:
    """DVC in the checkout at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *arguments: str) -> str:
        """The output of a command; UserError with DVC's own last line where it fails."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            **self.command(*arguments), capture_output=True, text=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
            reason = hide_secrets(said[-1].removeprefix("ERROR: "))
            words = [argument for argument in arguments if not argument.startswith("-")]
            raise UserError(
                f"`dvc {' '.join(words[:2])}` failed in {self.root}: {reason}",
                "cure that, or ask `pulmo doctor`",
            )
        return done.stdout

    def call(self, *arguments: str, shown: bool = False) -> int:
        """Exit code of a command. On Ctrl-C, of which it hears too, it is left to clean up; where another signal ends
        this process, the stage that it runs is stopped."""
        output = None if shown else subprocess.DEVNULL
        with subprocess.Popen(**self.command(*arguments), stdout=output, stderr=output) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.wait()
                raise
            except SystemExit:
                stop_stage(process)
                raise

    def start(self, *arguments: str, log: IO[Any], **variables: str) -> "subprocess.Popen[bytes]":
        """A command under way, out of reach of Ctrl-C, with `variables` in its environment, that prints to `log`."""
        command = self.command(*arguments)
        command["env"] = {**command["env"], **variables}
        return subprocess.Popen(**command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def command(self, *arguments: str) -> dict[str, Any]:
        """Arguments of `subprocess.run` for the dvc of this environment, be it activated or not."""
        python = Path(sys.executable)  # not resolved: a virtual environment's python is a link
        path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"  # DVC's workers look for dvc and python there
        command = [str(python), "-m", "dvc", *arguments]
        return {"args": command, "cwd": self.root, "env": {**os.environ, "PATH": path}, "stdin": subprocess.DEVNULL}

    def find_commits(self, name: str) -> set[str]:
        """Commits of the experiments called `name` (`toy-*` are several names), whatever commit they vary."""
        return set(run_git(self.root, "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").split())

    def read(self, path: Path, revision: str) -> str:
        """Text of an output at a DVC experiment, anything git resolves, or `workspace`, on disk or in the cache;
        UserError where it is not to be had."""
        import dvc.api

        with _reading():
            return str(dvc.api.read(str(path), repo=str(self.root), rev=_as_rev(revision)))

    def copy_folder(self, path: Path, revision: str, target: Path) -> Path | None:
        """Copy a folder from where `read` finds files to `target`; None where the pipeline had no such output then."""
        from dvc.api import DVCFileSystem

        with _reading():
            outputs = DVCFileSystem(str(self.root), rev=_as_rev(revision))
            if not outputs.exists(str(path)):
                return None
            outputs.get(str(path), str(target), recursive=True)
            return target

    def read_cached(self, path: Path, revision: str) -> str | None:
        """`read`, but None where the output is in no cache at hand."""
        try:
            return self.read(path, revision)
        except UserError:
            return None

    def open_repo(self) -> Any:
        """DVC's own object of this checkout, to be closed by `with`."""
        from dvc.repo import Repo

        return Repo(str(self.root))

    def cache_folder(self) -> Path:
        """The folder of the cache, as it is configured."""
        from dvc.exceptions import DvcException

        try:
            with self.open_repo() as repo:
                return Path(repo.cache.local_cache_dir)
        except (DvcException, OSError) as error:  # OSError: a link that leads nowhere
            raise UserError(
                f"DVC cannot use its cache in {self.root}: {hide_secrets(str(error))}",
                "`dvc cache dir` says where it is",
            ) from None

    def default_remote(self) -> str:
        """The name of the DVC remote that is used where none is named; empty where there is none."""
        with self.open_repo() as repo:
            return str(repo.config["core"].get("remote") or "")

    def list_uncached(self, outputs: Mapping[str, str]) -> list[str]:
        """Those of the outputs, each with its hash, that are not in the cache."""
        with self.open_repo() as repo:
            return [path for path, md5 in outputs.items() if not (md5 and repo.cache.local.exists(md5))]

    def read_queue(self) -> tuple[Tasks, int]:
        """Every task that DVC remembers, and the number of workers that answer."""
        from dvc.exceptions import DvcException

        try:
            with self.open_repo() as repo:
                queue = repo.experiments.celery_queue
                tasks = {task["rev"]: (task["name"] or task["rev"][:7], task["status"]) for task in queue.status()}
                return tasks, len(queue.worker_status())
        except DvcException as error:
            raise UserError(
                f"DVC cannot read its queue in {self.root}: {hide_secrets(str(error))}", "ask `pulmo doctor`"
            ) from None

    def start_workers(self, jobs: int) -> None:
        """Have DVC run what is queued, `jobs` at a time."""
        # Never piped: a worker holds what it was given as stdout, for ever where it hangs.
        if self.call("queue", "start", "--jobs", str(jobs)):
            raise UserError(f"no worker could be started in {self.root}", "`dvc queue start` says why")

    def queue_again(self, task: str) -> bool:
        """Put a task that failed, or that no worker runs any more, back into the queue, as it was; False where DVC
        knows of no such task."""
        from dvc.repo.experiments.queue.remove import remove_tasks
        from dvc.repo.experiments.queue.tasks import run_exp

        with self.open_repo() as repo:
            queue = repo.experiments.celery_queue
            active = {entry: task for entry in queue.iter_active() if entry.stash_rev == task}
            queue._mark_inactive_tasks_failure(active)  # what `dvc queue kill` does, less the signal to another's pid
            entry = next((done.entry for done in queue.iter_failed() if done.entry.stash_rev == task), None)
            if entry is None:
                return False
            remove_tasks(queue, [entry])
            message = queue.stash.format_message(entry.head_rev, entry.baseline_rev, entry.name, entry.branch)
            repo.scm.set_ref(queue.stash.ref, task, message=f"commit: {message}")
            queue.celery.signature(run_exp.s(entry.asdict())).delay()
            return True

    def read_worker_error(self) -> str:
        """The last error of the queue's workers in one line; empty where they had none."""
        logs = sorted(self.root.glob(".dvc/tmp/exps/celery/*.out"), key=lambda file: file.stat().st_mtime)
        text = "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
        errors = re.findall(r"^[\w.]*(?:Error|Exception): .+$", text, flags=re.MULTILINE)
        return hide_secrets(errors[-1]) if errors else ""


def _as_rev(revision: str) -> str | None:
    """A revision as DVC's Python functions take it, which have no name for the workspace."""
    return None if revision == WORKSPACE else revision


@contextmanager
def _reading() -> Iterator[None]:
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError
    from scmrepo.exceptions import SCMError

    try:
        yield
    except (DvcException, SCMError, DataIndexDirError, OSError) as error:
        reason = hide_secrets(" ".join(str(error).split()))[:150]
        raise UserError(reason, "`dvc pull` brings what is in no cache") from None


def to_arguments(params: Mapping[str, Any]) -> list[str]:
    """Params by their flat names as arguments of `dvc exp run`: -S train.lr=0.001 and so on."""
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in params.items()}
    return [part for key, text in texts.items() for part in ("-S", f"{key}={text}")]


def failure_reason(log: str) -> str:
    """The reason of a failure, from its log: the stage's own message and, in brackets, its hint, else DVC's line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for start in ("error: ", "ERROR: "):
        if places := [place for place, line in enumerate(lines) if line.startswith(start)]:
            hint = next((line for line in lines[places[-1] + 1 :] if line.startswith("hint: ")), "")
            return lines[places[-1]].removeprefix(start) + (f" ({hint})" if hint else "")
    return lines[-1] if lines else "failed without a word"


def stop_stage(process: "subprocess.Popen[bytes]") -> set[int]:
    """Stop the stage that a command of DVC runs, not DVC itself, which then cleans up after it; what has not ended
    after a minute is killed. Returns the numbers of the processes that were stopped."""
    deadline, asked = time.monotonic() + GRACE, set[int]()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.pid not in asked:  # twice would cut short what it does on the first
                    asked.add(child.pid)
                    child.terminate()
                if time.monotonic() > deadline:
                    child.kill()
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.2)
    return asked
