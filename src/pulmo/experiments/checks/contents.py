"""A check of every output by its bytes: DVC takes what kept its size and its time for unchanged."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pulmo.experiments.checks.finding import Finding, name_few
from pulmo.experiments.dvc import Dvc
from pulmo.experiments.project import Project

_LISTED = 5  # files that a cure names; the next look names the rest


class Recorded(NamedTuple):
    """A file of an output, as DVC recorded it."""

    output: str  # what `dvc checkout` brings back
    path: Path
    md5: str
    copy: Path  # in the cache, where it need not be

    @property
    def is_damaged(self) -> bool:
        """True where the file in the workspace has other bytes; one that is not there is missing, not damaged."""
        return self.path.is_file() and _hash(self.path) != self.md5

    @property
    def is_copy_damaged(self) -> bool:
        return self.copy.is_file() and _hash(self.copy) != self.md5


def check_contents(project: Project) -> Finding:
    """Check that outputs and their copies in the cache hold what DVC recorded."""
    files = list(_list_recorded(project.dvc))
    damaged = [file for file in files if file.is_damaged]
    copies = [file for file in files if file.is_copy_damaged]
    if not damaged and not copies:
        return Finding("ok", f"{len(files):,} files hold what DVC recorded")
    # a copy that is the same file, by a hard link, has one name
    alone = [file.copy for file in copies if file not in damaged or not file.path.samefile(file.copy)]
    names = [_relative(project.root, path) for path in (*(file.path for file in damaged), *alone)]
    return Finding("error", f"{name_few(names)} not as DVC recorded", _find_cure(project.root, damaged, copies))


def _find_cure(root: Path, damaged: list[Recorded], copies: list[Recorded]) -> str:
    wrong = [*(file.path for file in damaged), *(file.copy for file in copies)]
    remove = shlex.join(["rm", "-f", *dict.fromkeys(_relative(root, path) for path in wrong[:_LISTED])])
    outputs = shlex.join(sorted({file.output for file in damaged}))
    if len(wrong) > _LISTED:
        return f"{remove}; pulmo doctor --deep, which names the next"
    if not copies and all(file.copy.is_file() for file in damaged):
        return f"{remove} && dvc checkout {outputs}"
    return f"{remove}; dvc pull (from a remote), or dvc repro"


def _list_recorded(dvc: Dvc) -> Iterator[Recorded]:
    """Every file of every output in the workspace's dvc.lock; of a folder those that the cache lists."""
    with dvc.open_repo() as repo:
        for out in repo.index.outs:
            if out.hash_name != "md5" or not out.hash_info or not out.is_in_repo:
                continue
            output, path, md5 = str(out), Path(out.fs_path), out.hash_info.value
            copy = Path(repo.cache.local.oid_to_path(md5))
            if not out.hash_info.isdir:
                yield Recorded(output, path, md5, copy)
                continue
            listing = md5.removesuffix(".dir")
            yield Recorded(output, copy, listing, copy)
            if copy.is_file() and _hash(copy) == listing:
                for entry in json.loads(copy.read_text(encoding="utf-8")):
                    name, md5 = entry["relpath"], entry["md5"]
                    yield Recorded(output, path / name, md5, Path(repo.cache.local.oid_to_path(md5)))


def _relative(root: Path, path: Path) -> str:
    """A path as it is typed in the project's root."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
