"""Checks for what keeps a checkout from working, each with its cure: one small function per thing looked at."""

import json
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.base.params import load_params
from pulmo.base.process import usable_cores
from pulmo.experiments.project import Project
from pulmo.experiments.workspace import KEEP, has_own_results, list_lost_outputs
from pulmo.tracking.upkeep import ask_once, list_left_open, move_artifacts, probe_store

_GIB = 2**30
_NEEDED, _ENOUGH = 1, 5  # GiB: the phantom run, the real films with cache and a few experiments
_TOLD = ("torch", "mlflow", "dvc")


class Finding(NamedTuple):
    """The result of a check; `cure` is empty where there is nothing to do."""

    state: Literal["ok", "warning", "error"]
    text: str
    cure: str = ""


def examine(project: Project) -> Iterator[tuple[str, Finding]]:
    """Every check of a project by name, as each is done; a check that itself breaks is a finding too.

    What cannot be seen because an earlier check failed is left out.
    """
    failed: set[str] = set()
    for name, check in CHECKS.items():
        if "project" in failed or _NEEDS.get(name) in failed:
            continue
        try:
            found = check(project)
        except UserError as error:
            found = Finding("error", error.message, error.hint)
        except (ValueError, OSError) as error:  # a damaged file that no check foresees
            found = Finding("error", hide_secrets(" ".join(str(error).split())))
        if found.state == "error":
            failed.add(name)
        yield name, found


def check_project(project: Project) -> Finding:
    """Check that this is a checkout of Pulmo at all."""
    missing = [name for name in ("dvc.yaml", "params.yaml", "stages", ".dvc") if not (project.root / name).exists()]
    if missing:
        text = f"{project.root} is not a Pulmo project: it has no {_few(missing)}"
        return Finding("error", text, "cd into your clone of it; git clone brings one")
    return Finding("ok", str(project.root))


def check_git(project: Project) -> Finding:
    """DVC keeps experiments as commits, so it needs git, a repository, a commit, and the history they start from."""
    if not shutil.which("git"):
        return Finding("error", "git is not installed", "install git (apt install git, brew install git)")
    if not run_git(project.root, "rev-parse", "--show-toplevel"):
        cure = "git clone (an unpacked .zip has no history), or git init && git add -A && git commit -m start"
        return Finding("error", f"{project.root} is no git repository", cure)
    if not (head := run_git(project.root, "rev-parse", "--verify", "--quiet", "--short", "HEAD")):
        return Finding("error", "the repository has no commit", "git add -A && git commit -m start")
    if run_git(project.root, "rev-parse", "--is-shallow-repository") == "true":
        return Finding("error", "shallow clone: queued experiments record nothing", "git fetch --unshallow")
    if not run_git(project.root, "config", "user.email"):
        return Finding("warning", "git does not know who you are", "git config --global user.email YOU@EXAMPLE.ORG")
    return Finding("ok", f"at commit {head}, whole history")


def check_versions(project: Project) -> Finding:
    """The installed packages against the ranges of pyproject.toml."""
    wanted = tomllib.loads((project.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = ".".join(map(str, sys.version_info[:3]))
    wrong = [] if python in SpecifierSet(wanted["requires-python"]) else [f"python {python}"]
    for requirement in map(Requirement, wanted["dependencies"]):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} (wanted {requirement.specifier})")
    if wrong:
        return Finding("error", ", ".join(wrong), "rm -rf .venv && make repro")
    return Finding("ok", ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in _TOLD)]))


def check_environment(project: Project) -> Finding:
    """The stages run `python` as the PATH finds it, which must be the one with the packages."""
    found = shutil.which("python")
    if found and Path(found).parent.resolve() == Path(sys.executable).parent.resolve():
        return Finding("ok", f"stages run {found}")
    text = f"stages would run {found or 'no python at all'}, not {sys.executable}"
    if not os.environ.get("VIRTUAL_ENV"):
        text = f"no virtual environment is active: {text}, and `dvc repro` ends in an ImportError"
    return Finding("warning", text, "source .venv/bin/activate, or use make")


def check_params(project: Project) -> Finding:
    """params.yaml as the stages read it."""
    load_params(project.root / "params.yaml")
    return Finding("ok", "params.yaml is valid")


def check_data(project: Project) -> Finding:
    """Check that what the pipeline wrote is there, unchanged, and in the cache."""
    told = json.loads(project.dvc.run("data", "status", "--json"))
    uncommitted = told.get("uncommitted", {})
    if absent := told.get("not_in_cache"):
        return Finding("warning", f"{_few(absent)} not in the cache", "dvc pull (from a remote), or make repro")
    if missing := uncommitted.get("deleted"):
        return Finding("warning", f"{_few(missing)} missing", "dvc checkout")
    if changed := uncommitted.get("modified"):
        return Finding("warning", f"{_few(changed)} changed by hand", "dvc checkout --force, or dvc repro")
    return Finding("ok", "every output is there and in the cache")


def check_results(project: Project) -> Finding:
    """The results that HEAD tells of: whether they can be had, to be compared or promoted."""
    own = has_own_results(project.root)
    if own and (absent := list_lost_outputs(project.dvc)):
        return Finding(
            "warning", f"HEAD's results were made elsewhere: {_few(absent)} in no cache here", KEEP.strip("`")
        )
    return Finding("ok", "the workspace has results that HEAD has not" if own else "those of HEAD")


def check_plots(project: Project) -> Finding:
    """The page in which `dvc plots` draws, which without a network needs scripts of its own."""
    settings = project.root / ".dvc/config.local"
    told = settings.is_file() and "html_template" in settings.read_text(encoding="utf-8")
    if not (told and (project.root / ".dvc/plots.html").is_file()):
        return Finding("warning", "`dvc plots` draws nothing without a network", "pulmo setup")
    return Finding("ok", "`dvc plots` needs no network")


def check_cache(project: Project) -> Finding:
    """The place of DVC's cache, the kinds of link from outputs to it, and the remotes to share through."""
    lines = [line.partition(": ") for line in project.dvc.run("version").splitlines()]
    told = {key: value for key, _, value in lines}
    place, links = told.get("Cache directory"), told.get("Cache types", "")
    cache = f"cache on {place}, links: {links}" if place else "no cache yet"
    return Finding("ok", f"{cache}; remotes: {hide_secrets(told.get('Remotes', 'None'))}")


def check_leftover(project: Project) -> Finding:
    """A file store of an older MLflow makes `mlflow ui` look there, and show none of the runs."""
    if list((project.root / "mlruns").glob("*/meta.yaml")):
        return Finding("error", "a leftover mlruns/ hides the store from `mlflow ui`", "mv mlruns mlruns.old")
    return Finding("ok", "no leftover mlruns/")


def check_store(project: Project) -> Finding:
    """Check that runs can be written."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith("sqlite:///") and not given.startswith("sqlite:////"):
        text = f"MLFLOW_TRACKING_URI={show_address(given)} is relative: temporary experiments would lose their runs"
        return Finding(
            "error",
            text,
            f"export MLFLOW_TRACKING_URI={shlex.quote(f'sqlite:///{project.root}/mlflow.db')}, or unset it",
        )
    if not project.has_store:
        return Finding("ok", "no mlflow.db yet; the first run makes it")
    ask_once()
    runs = probe_store(project.store)
    if moved := move_artifacts(project.store, look=True):
        return Finding(
            "warning", f"{moved} addresses in mlflow.db lead to where this checkout was before", "pulmo sync"
        )
    return Finding("ok", f"{show_address(given) or 'mlflow.db'} takes runs, and holds {runs}")


def check_open_runs(project: Project) -> Finding:
    """Runs that a kill left RUNNING."""
    if not project.has_store:
        return Finding("ok", "no run yet")
    gone, unknown = list_left_open(project.store)
    if gone:
        return Finding(
            "warning", f"{_few([run.info.run_name for run in gone])} RUNNING without a process", "pulmo sync"
        )
    elsewhere = f"; {len(unknown)} RUNNING on other machines" if unknown else ""
    return Finding("ok", f"no run was left open{elsewhere}")


def check_compute(project: Project) -> Finding:
    """The device and the precision that `device: auto` and `precision: auto` choose."""
    import torch

    from pulmo.model.device import choose_device, choose_precision

    device = choose_device("auto")
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else f"CPU, {usable_cores()} cores"
    text = f"{name}, trains in {choose_precision('auto', device)}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        cure = "nvidia-smi; pip install a torch built for that driver (https://pytorch.org)"
        return Finding("warning", f"{text}; there is an NVIDIA driver, but torch {torch.__version__} sees no GPU", cure)
    return Finding("ok", text)


def check_disk(project: Project) -> Finding:
    """Room for data, cache and runs."""
    free = shutil.disk_usage(project.root).free / _GIB
    state: Literal["ok", "warning", "error"] = "ok" if free >= _ENOUGH else "warning" if free >= _NEEDED else "error"
    cure = "" if state == "ok" else "dvc gc --workspace --all-experiments, or free space"
    return Finding(state, f"{free:.1f} GiB free", cure)


_NEEDS = {"data": "git", "results": "git", "cache": "git", "open runs": "store"}  # the check that each builds on
CHECKS: dict[str, Callable[[Project], Finding]] = {
    "project": check_project,
    "git": check_git,
    "versions": check_versions,
    "environment": check_environment,
    "params": check_params,
    "data": check_data,
    "results": check_results,
    "cache": check_cache,
    "plots": check_plots,
    "mlruns": check_leftover,
    "store": check_store,
    "open runs": check_open_runs,
    "compute": check_compute,
    "disk": check_disk,
}


def _few(names: list[str]) -> str:
    return ", ".join(sorted(names)[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
