"""Published recipes as DVC experiments.

A recipe in recipes/NAME.yaml overlays params.yaml; recipes/protocols.yaml holds the ways to split. Experiments run in a
temporary copy of the project (`dvc exp run --temp`), so that params.yaml and the workspace stay as they are.
"""

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import RootModel

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.base.names import check_name
from pulmo.base.params import Positive, Section
from pulmo.base.params_file import flatten, read_section
from pulmo.base.yaml import read_yaml
from pulmo.experiments.aside import prepare_aside
from pulmo.experiments.dvc import to_arguments
from pulmo.experiments.leaderboard import (
    HONEST,
    SHOWN,
    Entry,
    Metric,
    Result,
    name_source,
    read_entries,
    record,
    recorded_source,
)
from pulmo.experiments.listing import hash_films
from pulmo.experiments.project import Project
from pulmo.experiments.revisions import read_output
from pulmo.metrics.estimates import Estimate, ValueInInterval, number
from pulmo.model.hubs.names import read_name
from pulmo.reporting.saved import read_part

PROTOCOLS = "protocols"
FIRST_SEED = 42
Overlay = dict[str, dict[str, Any]]  # by section of params.yaml


class RunError(UserError):
    """An experiment of a recipe that ended without a result."""


class NotRun(RunError):
    """A recipe that was not begun, for its weights are not at hand."""


class RecipeFile(Section):
    """recipes/NAME.yaml."""

    protocol: str
    published: dict[Literal["test"], dict[Metric, float]]
    params: Overlay


class Protocol(Section, extra="allow"):
    """The number of times that films are drawn, and sections of params.yaml."""

    __pydantic_extra__: Overlay
    draws: Positive = 1


class Protocols(RootModel[dict[str, Protocol]]):
    """recipes/protocols.yaml."""


def list_recipes(folder: Path) -> list[str]:
    """Names of the recipes in `folder`."""
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem != PROTOCOLS)


@dataclass(frozen=True)
class Recipe:
    """A recipe under one protocol: the published numbers of the test set, how many draws of films to run it on, and
    params by their flat names."""

    name: str
    protocol: str
    published: Mapping[Metric, float]
    draws: int
    params: dict[str, Any]


def read_recipe(folder: Path, name: str, honest: bool) -> Recipe:
    """The recipe as published, or under the honest protocol; UserError that names file and key."""
    check_name(name, "recipe")
    if name not in list_recipes(folder):
        raise UserError(f"no recipe {name!r} in {folder}", f"there are {', '.join(list_recipes(folder))}")
    file = folder / f"{name}.yaml"
    content = read_section(file, RecipeFile)
    protocol = HONEST if honest else content.protocol
    protocols = read_section(folder / f"{PROTOCOLS}.yaml", Protocols).root
    if protocol not in protocols:
        raise UserError(
            f"{file}: protocol {protocol!r} is not in {PROTOCOLS}.yaml", f"there are {', '.join(protocols)}"
        )
    way = protocols[protocol]
    params = flatten(content.params) | flatten(way.__pydantic_extra__)
    known = flatten(read_yaml(folder.parent / paths.PARAMS))
    if unknown := [key for key in params if key not in known]:
        raise UserError(f"{file}: {unknown[0]} is no key of {paths.PARAMS}", "remove it or correct its spelling")
    return Recipe(name, protocol, content.published.get("test", {}), way.draws, params)


def is_honest(folder: Path, name: str) -> bool:
    """True where the recipe's own protocol is the honest one, so that there is nothing to run twice."""
    return read_recipe(folder, name, honest=False).protocol == HONEST


def choose_runs(folder: Path, names: Sequence[str], protocol: str) -> list[tuple[str, bool]]:
    """Name of each recipe to run (all where none is named), and whether under the honest protocol; `protocol` is
    published, honest or both."""
    wanted = {"both": (False, True), "published": (False,), "honest": (True,)}[protocol]
    return [
        (name, honest)
        for name in names or list_recipes(folder)
        for honest in (wanted[-1:] if is_honest(folder, name) else wanted)
    ]


def run_recipe(project: Project, name: str, honest: bool, settings: Sequence[str] = ()) -> Entry:
    """Run one recipe as an experiment named after it, and add what came out to reports/recipes.json.

    `settings` are further `key=value` pairs, taken after those of the recipe. A protocol of several draws makes an
    experiment of each, `split.seed` counting up from 42 whatever `settings` say, and is recorded with the mean, the
    lowest and the highest draw. An experiment of that name is replaced once the new one is there. Raises RunError
    when an experiment fails; what failed stands above, in the stage's own words. NotRun, which is recorded too, where
    the weights that it starts from cannot be had. Draws that came to an end before have opened the test set, and count.
    What was run on films of another source stays: the new experiment then bears its source in its name.
    """
    recipe = read_recipe(project.root / "recipes", name, honest)
    prepare_aside(project)
    params = _read_params(project, recipe, settings)
    source = name_source(params)
    experiment = _name_experiment(project, name, honest, source)
    about = _describe(recipe, settings, source)
    _check_weights(project.root, experiment, about, str(params["train.weights"]))
    start = time.monotonic()
    changed = run_git(project.root, "status", "--porcelain", "-uno", "--", ".", ":!dvc.lock", ":!reports")
    commits = []
    for draw in range(recipe.draws):
        draw_name = f"{experiment}-draw-{draw + 1}" if draw else experiment
        commits.append(_run_experiment(project, draw_name, _arguments(recipe, settings, draw)))
        record(project.root, experiment, Entry(source=source), opened=1)
    facts = about.add(_read_results(project, commits, "-dirty" if changed else ""))
    took = Entry(seconds=round(time.monotonic() - start), date=datetime.now(UTC).date().isoformat())
    return record(project.root, experiment, facts.add(took))


def _read_params(project: Project, recipe: Recipe, settings: Sequence[str]) -> dict[str, Any]:
    """Flat params.yaml with the recipe and the settings laid over it; UserError for a setting of no key."""
    known = flatten(read_yaml(project.root / paths.PARAMS))
    chosen = {key: value.strip("'\"") for key, _, value in (setting.partition("=") for setting in settings)}
    if unknown := [key for key in chosen if key not in known]:
        raise UserError(f"-S {unknown[0]} is no key of {paths.PARAMS}", "write -S train.lr=0.001")
    return known | recipe.params | chosen


def _check_weights(root: Path, experiment: str, about: Entry, weights: str) -> None:
    """Fetch weights that lie on a hub; NotRun, with a row of the leaderboard, where that fails."""
    if not read_name(weights):
        return
    from pulmo.model.hubs.networks import find_pretrained
    from pulmo.model.hubs.pretrained import WeightsNotAtHand

    try:
        find_pretrained(weights)
    except WeightsNotAtHand as error:
        if not read_entries(root).get(experiment, about).test:  # else an earlier result stands
            record(root, experiment, about.add(Entry(not_run="weights not at hand")))
        raise NotRun(f"{experiment} was not run: {error.message}", error.hint) from error


def _name_experiment(project: Project, name: str, honest: bool, source: str) -> str:
    experiment = f"{name}-{HONEST}" if honest and not is_honest(project.root / "recipes", name) else name
    if (other := read_entries(project.root).get(experiment)) and recorded_source(other) != source:
        experiment += "-" + re.sub(r"[^\w.]+", "-", source).strip("-.")
    return experiment


def _arguments(recipe: Recipe, settings: Sequence[str], draw: int) -> list[str]:
    own = [part for setting in settings for part in ("-S", setting)]
    seed = {"split.seed": FIRST_SEED + draw} if recipe.draws > 1 else {}
    return [*to_arguments(recipe.params), *own, *to_arguments(seed)]


def _describe(recipe: Recipe, settings: Sequence[str], source: str) -> Entry:
    """The recipe and settings that were to be run, less settings that the recipe says itself or its draws override."""
    own = to_arguments(recipe.params)
    overridden = ("split.seed",) if recipe.draws > 1 else ()
    changed = [each for each in settings if each not in own and each.partition("=")[0] not in overridden]
    changed = [_without_folders(each) for each in changed]  # Git keeps them
    return Entry(
        recipe=recipe.name,
        protocol=recipe.protocol,
        published=dict(recipe.published),
        draws=recipe.draws,
        settings=changed,
        source=source,
    )


def _without_folders(setting: str) -> str:
    """A setting whose value is a path of this machine with PATH in the place of its folders."""
    key, sign, value = setting.partition("=")
    path = Path(value.strip("'\""))
    named = path.is_absolute() or path.parts[:1] == ("~",) or value.startswith("$")
    return f"{key}{sign}PATH/{path.name}" if named else setting


def _read_results(project: Project, commits: Sequence[str], mark: str) -> Entry:
    """A summary of the results of all draws; `mark` follows the revision."""
    reports = [json.loads(read_output(project, paths.EVALUATION, commit)) for commit in commits]
    model = json.loads(read_output(project, paths.TRAINED / "model.json", commits[0]))
    return Entry(
        test={key: _summarize([_find(report, "test", key) for report in reports]) for key in SHOWN},
        val_auroc=_summarize([_find(report, "val", "auroc") for report in reports]),
        weights=model["training"]["weights"],
        data_sha256=model["data_sha256"],
        films_md5=hash_films(project.root, commits[0]),
        git_revision=model["git_revision"] + mark,
    )


def _run_experiment(project: Project, name: str, arguments: Sequence[str]) -> str:
    """The commit of a new experiment, in the place of an earlier one of that name, which stays where the new one fails.

    A kill leaves the earlier one as NAME-before.
    """
    # Not `exp run --force`, which replaces the experiment too, but runs even the stages that DVC has in its cache.
    aside = f"{name}-before"  # renaming and removing fail where there is nothing of that name
    project.dvc.call("exp", "rename", "--force", name, aside)
    earlier = project.dvc.find_commits(name)  # of other baselines
    try:
        if project.dvc.call("exp", "run", "--temp", "-n", name, *arguments, shown=True):
            raise RunError(f"experiment {name} failed, see above", "cure that and run the recipe again")
        if not (commits := project.dvc.find_commits(name) - earlier):
            raise RunError(f"experiment {name} ran, but DVC recorded nothing", "`pulmo doctor` may tell why")
    except BaseException:
        project.dvc.call("exp", "rename", aside, name)
        raise
    project.dvc.call("exp", "remove", aside)
    return commits.pop()


def _summarize(estimates: Sequence[Estimate]) -> Result:
    """The estimate of the one draw, or mean, lowest and highest of several."""
    values = [number(estimate.value) for estimate in estimates]
    several = ValueInInterval(statistics.fmean(values), min(values), max(values))
    return several if len(estimates) > 1 else estimates[0]


def _find(report: Any, split: str, key: str) -> Estimate:
    """An estimate of a split out of a report; the loss is the log loss of the network as it was trained."""
    return read_part(
        report, Estimate, split, *(("calibration", "before", "log_loss") if key == "loss" else ("metrics", key))
    )
