"""Checks of what the pipeline wrote, as DVC sees it."""

import json

from pulmo.base import paths
from pulmo.base.addresses import hide_secrets
from pulmo.experiments.aside import needs_name
from pulmo.experiments.checks.finding import Finding, name_few
from pulmo.experiments.project import Project
from pulmo.experiments.workspace import KEEP, has_own_results, list_lost_outputs
from pulmo.films.places import CHANGED_CURE, list_changed, read_places
from pulmo.films.rows.table import read_films


def check_data(project: Project) -> Finding:
    """Check that what the pipeline wrote is there, unchanged, and in the cache."""
    status = json.loads(project.dvc.run("data", "status", "--json"))
    uncommitted = status.get("uncommitted", {})
    if absent := status.get("not_in_cache"):
        return Finding("warning", f"{name_few(absent)} not in the cache", "dvc pull (from a remote), or make repro")
    if missing := uncommitted.get("deleted"):
        return Finding("warning", f"{name_few(missing)} missing", "dvc checkout")
    if changed := uncommitted.get("modified"):
        return Finding("warning", f"{name_few(changed)} changed by hand", "dvc checkout --force, or dvc repro")
    if places := read_places(project.root / paths.RAW):
        if lost := list_changed(places, read_films(project.root / paths.FILMS)):
            text = f"{len(lost):,} of {len(places):,} films read in place have changed or are gone"
            return Finding("warning", f"{text}, {places[min(lost)].file} for one", CHANGED_CURE)
        return Finding("ok", f"every output is there and in the cache; {len(places):,} films are read in place")
    return Finding("ok", "every output is there and in the cache")


def check_results(project: Project) -> Finding:
    """The results that HEAD tells of: whether they can be had, to be compared or promoted."""
    own = has_own_results(project.root)
    if own and (absent := list_lost_outputs(project.dvc)):
        return Finding(
            "warning", f"HEAD's results were made elsewhere: {name_few(absent)} in no cache here", KEEP.strip("`")
        )
    return Finding("ok", "the workspace has results that HEAD has not" if own else "those of HEAD")


def check_plots(project: Project) -> Finding:
    """The page in which `dvc plots` draws, which without a network needs scripts of its own."""
    settings = project.root / ".dvc/config.local"
    is_set = settings.is_file() and "html_template" in settings.read_text(encoding="utf-8")
    if not (is_set and (project.root / ".dvc/plots.html").is_file()):
        return Finding("warning", "`dvc plots` draws nothing without a network", "pulmo setup")
    return Finding("ok", "`dvc plots` needs no network")


def check_cache(project: Project) -> Finding:
    """The place of DVC's cache, the kinds of link from outputs to it, and the remotes to share through."""
    lines = [line.partition(": ") for line in project.dvc.run("version").splitlines()]
    facts = {key: value for key, _, value in lines}
    if needs_name(project.dvc):
        text = f"DVC can run no experiment aside with its cache in {project.dvc.cache_folder()}"
        return Finding("warning", text, "pulmo setup")
    place, links = facts.get("Cache directory"), facts.get("Cache types", "")
    cache = f"cache on {place}, links: {links}" if place else "no cache yet"
    return Finding("ok", f"{cache}; remotes: {hide_secrets(facts.get('Remotes', 'None'))}")
