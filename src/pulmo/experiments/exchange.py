"""Results of one sweep between checkouts: Git carries its experiments, the DVC remote what they wrote."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from pulmo.base.addresses import hide_secrets
from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.experiments.project import Project
from pulmo.experiments.workspace import find_commit, list_lost_outputs


class Exchange:
    """The way from this checkout to those of the other workers, all at the same `commit`."""

    def __init__(self, project: Project, remote: str, commit: str) -> None:
        self.project = project
        self.remote = remote  # Git's
        self.commit = commit
        self.unsent: list[str] = []
        self._sending = Lock()

    def list_sent(self, sweep: str) -> list[str]:
        """Refs of experiments on the Git remote that bear the names of a sweep; UserError where it does not answer."""
        done = _call_git(self.project.root, "ls-remote", self.remote, f"refs/exps/*/*/{sweep}-[0-9]*")
        if done.returncode:
            reason = hide_secrets((done.stderr.strip().splitlines() or ["no reason given"])[-1])
            raise UserError(f"the Git remote {self.remote} cannot be read ({reason})", "check `git remote -v`")
        return [line.partition("\t")[2] for line in done.stdout.splitlines()]

    def share_data(self) -> None:
        """Have the outputs of the commit in cache and DVC remote; UserError where neither holds them all."""
        dvc = self.project.dvc
        if not list_lost_outputs(dvc):
            print(f"pushing the outputs of commit {self.commit[:7]} to the DVC remote", flush=True)
            dvc.run("--wait-for-lock", "push")
            return
        print(f"fetching the outputs of commit {self.commit[:7]} from the DVC remote", flush=True)
        reason = ""
        try:
            dvc.run("--wait-for-lock", "fetch")
        except UserError as error:
            reason = f" ({error.message})"
        if lost := list_lost_outputs(dvc):  # of what the remote lacks, dvc only warns
            raise UserError(
                f"{lost[0]} of commit {self.commit[:7]} is neither in the cache nor in the DVC remote{reason}",
                "`dvc push` where it was made, or `dvc repro`, and commit and push dvc.lock",
            )

    def send(self, name: str) -> None:
        """Push an experiment with its outputs; one that cannot be pushed now is tried again by `send_rest`."""
        self.unsent.append(name)
        self.send_rest()

    def send_rest(self) -> None:
        """Push what could not be pushed before, and print the reason where it cannot be now."""
        with self._sending:  # jobs are threads: two that end at once would both push what waits
            for name in tuple(self.unsent):
                try:
                    self.project.dvc.run("--wait-for-lock", "exp", "push", self.remote, self._ref(name))
                    self.unsent.remove(name)
                except UserError as error:
                    print(f"{name}: not pushed yet: {error.message}", flush=True)

    def list_lacking(self, names: Iterable[str]) -> list[str]:
        """Those of the named experiments that are not in this checkout."""
        refs = run_git(self.project.root, "for-each-ref", "--format=%(refname)", self._ref("")).splitlines()
        return [name for name in names if self._ref(name) not in refs]

    def receive(self, name: str) -> bool:
        """Fetch an experiment without its outputs; True where it came."""
        ref = self._ref(name)
        fetched = _call_git(self.project.root, "fetch", "--quiet", "--no-tags", self.remote, f"{ref}:{ref}")
        return fetched.returncode == 0

    def check_unchanged(self) -> None:
        """UserError where an experiment would not be one of the commit that is shared."""
        root = self.project.root
        if (commit := find_commit(root, "HEAD")) != self.commit:
            raise UserError(
                f"the sweep tries commit {self.commit[:7]}, and this checkout is at {commit[:7]} now",
                f"`git checkout {self.commit[:7]}`, and the same command goes on",
            )
        if changes := run_git(root, "status", "--porcelain", "-uno").splitlines():
            raise UserError(
                f"{changes[0][3:]} differs from its commit, which is all that other workers have",
                "commit and push it, or put it aside with `git stash`",
            )

    def _ref(self, name: str) -> str:
        return f"refs/exps/{self.commit[:2]}/{self.commit[2:]}/{name}"


def open_exchange(project: Project) -> Exchange:
    """The exchange of a checkout; UserError where it has no remotes, or is at no commit that others can have."""
    root, remote = project.root, find_git_remote(project.root)
    if not remote:
        raise UserError(
            f"{root} has no Git remote through which workers share experiments", "`git remote add origin URL`"
        )
    if not project.dvc.default_remote():
        raise UserError(
            f"{root} has no default DVC remote through which workers share outputs",
            "`dvc remote add --default store URL`, then commit and push .dvc/config",
        )
    commit = find_commit(root, "HEAD")
    if not run_git(root, "for-each-ref", "--contains", commit, f"refs/remotes/{remote}"):
        raise UserError(f"commit {commit[:7]} is not on the Git remote {remote}", "push it, or fetch if it was pushed")
    exchange = Exchange(project, remote, commit)
    exchange.check_unchanged()
    return exchange


def find_git_remote(root: Path) -> str:
    """The Git remote of a checkout, origin if there are several; empty where there is none."""
    remotes = run_git(root, "remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), "")


def _call_git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A git command that asks a remote, and fails where that would want a password typed."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, env=environment)
