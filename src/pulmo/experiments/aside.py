"""Experiments aside from the workspace (`--temp`, the queue, sweeps, recipes): what DVC needs of a checkout for them.

DVC hands the commit of an experiment over by an address, in which #, ? and codes such as %20 mean something else, and
writes the path of its cache into a file that takes ASCII letters alone. Around the second there is a way: a link to the
cache with a plain name, which `pulmo setup` writes into .dvc/config.local.
"""

import hashlib
import os
import re
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.base.paths import expand_home
from pulmo.experiments.dvc import Dvc
from pulmo.experiments.project import Project

_NOT_IN_ADDRESSES = re.compile(r"[#?]|%[0-9A-Fa-f]{2}")


def prepare_aside(project: Project) -> None:
    """See to it that experiments can run aside; UserError where DVC would lose them or break, with the cure."""
    if run_git(project.root, "rev-parse", "--is-shallow-repository") == "true":
        raise UserError(
            f"{project.root} is a shallow clone, in which DVC records no experiment", "run `git fetch --unshallow`"
        )
    if obstacle := find_obstacle(project.root):
        raise UserError(obstacle, "move the checkout to another path")
    settings = project.root / ".dvc/config.local"
    linked = settings.is_file() and str(_links()) in settings.read_text(encoding="utf-8")
    if linked or not str(project.root).isascii():
        name_cache(project.dvc)


def find_obstacle(root: Path) -> str:
    """The reason why DVC can run no experiment aside below the path of this checkout; empty where it can."""
    match = _NOT_IN_ADDRESSES.search(str(root))
    return f"DVC runs no queue and no `--temp` below a path with {match[0]} in it, {root}" if match else ""


def name_cache(dvc: Dvc) -> Path | None:
    """Give a cache whose path has letters outside ASCII a plain name, a link, and take one away that is no longer
    needed; returns the link, None where there is none."""
    named = dvc.cache_folder()
    cache = _follow(dvc, named)
    link = None if str(cache).isascii() else _links() / hashlib.sha256(str(cache).encode()).hexdigest()[:12]
    if link and link.is_dir() and not link.is_symlink():
        cure = f"`cp -rn {link}/. {cache} && rm -r {link}`, then `pulmo setup`"
        raise UserError(f"{link} was a link to the cache; when it was gone, DVC began another cache there", cure)
    if link:
        cache.mkdir(parents=True, exist_ok=True)  # DVC makes none behind a link
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(cache)
    if link and link != named:
        dvc.run("config", "--local", "cache.dir", str(link))
    elif not link and cache != named:
        dvc.run("config", "--local", "--unset", "cache.dir")
    return link


def needs_name(dvc: Dvc) -> bool:
    """True where the cache has no plain name, or one that leads nowhere."""
    named = dvc.cache_folder()
    return not str(named).isascii() or (named.parent == _links() and not (named.is_symlink() and named.is_dir()))


def _follow(dvc: Dvc, named: Path) -> Path:
    """The folder behind the name of a cache. Where a checkout was moved, a link leads to where it was before."""
    if named.parent != _links():
        return named
    return named.readlink() if named.is_symlink() and named.is_dir() else dvc.root / ".dvc/cache"


def _links() -> Path:
    """The folder of the links, in the user's home where its path is plain."""
    own = expand_home(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return own / "pulmo/caches" if str(own).isascii() else Path("/var/tmp") / f"pulmo-caches-{os.getuid()}"
