"""Checks of the checkout itself: files, git, packages, Python, params."""

import os
import shutil
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pulmo.base.git import run_git
from pulmo.base.params_file import load_params
from pulmo.experiments.aside import find_obstacle
from pulmo.experiments.checks.finding import Finding, name_few
from pulmo.experiments.project import Project

_NAMED = ("torch", "mlflow", "dvc")


def check_project(project: Project) -> Finding:
    """Check that this is a checkout of Pulmo at all."""
    missing = [name for name in ("dvc.yaml", "params.yaml", "stages", ".dvc") if not (project.root / name).exists()]
    if missing:
        text = f"{project.root} is not a Pulmo project: it has no {name_few(missing)}"
        return Finding("error", text, "cd into your clone of it; git clone brings one")
    if obstacle := find_obstacle(project.root):
        return Finding("warning", obstacle, "move the checkout to another path")
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
    requirements = [*wanted["dependencies"], *wanted.get("optional-dependencies", {}).get("pipeline", [])]
    for requirement in map(Requirement, requirements):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} (wanted {requirement.specifier})")
    if wrong:
        return Finding("error", ", ".join(wrong), "rm -rf .venv && make repro")
    return Finding("ok", ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in _NAMED)]))


def check_environment(project: Project) -> Finding:
    """The stages run `python` as the PATH finds it, which must be the one with the packages."""
    python = shutil.which("python")
    if python and Path(python).parent.resolve() == Path(sys.executable).parent.resolve():
        return Finding("ok", f"stages run {python}")
    text = f"stages would run {python or 'no python at all'}, not {sys.executable}"
    if not os.environ.get("VIRTUAL_ENV"):
        text = f"no virtual environment is active: {text}, and `dvc repro` ends in an ImportError"
    return Finding("warning", text, "source .venv/bin/activate, or use make")


def check_params(project: Project) -> Finding:
    """params.yaml as the stages read it."""
    load_params(project.root / "params.yaml")
    return Finding("ok", "params.yaml is valid")
