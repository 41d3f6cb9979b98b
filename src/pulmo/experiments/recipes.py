"""Published recipes as DVC experiments, and the leaderboard that sets them side by side.

A recipe in recipes/NAME.yaml overlays params.yaml; recipes/protocols.yaml holds the ways to split. Experiments run in a
temporary copy of the project (`dvc exp run --temp`), so that params.yaml and the workspace stay as they are.
"""

import json
import re
import statistics
import subprocess
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import RootModel

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.files import read_json, write_bytes, write_json
from pulmo.base.git import run_git
from pulmo.base.params import Positive, Section, flatten, read_section
from pulmo.base.yaml import read_yaml
from pulmo.experiments.dvc import dvc_command, to_arguments
from pulmo.experiments.revisions import check_history, find_commits, read_output

PROTOCOLS = "protocols"
HONEST = "honest"
FIRST_SEED = 42
# Where films are, and what the leaderboard does not show.
_NO_CHANGE = ("data.", "evaluate.rendered_films", "evaluate.robustness_films", "evaluate.explain_films")
_PLACE = {"kaggle": "data.kaggle.handle", "huggingface": "data.huggingface.repo", "folder": "data.folder.path"}
ENTRIES, LEADERBOARD = paths.REPORTS / "recipes.json", paths.REPORTS / "recipes.md"
Metric = Literal["auroc", "accuracy", "sensitivity", "specificity", "f1", "loss"]
SHOWN: tuple[Metric, ...] = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "loss")
Overlay = dict[str, dict[str, Any]]  # by section of params.yaml


class RunError(UserError):
    """An experiment of a recipe that ended without a result."""


class RecipeFile(Section):
    """recipes/NAME.yaml."""

    protocol: str
    published: dict[Literal["test"], dict[Metric, float]]
    params: Overlay


class Protocol(Section, extra="allow"):
    """How often films are drawn, and sections of params.yaml."""

    __pydantic_extra__: Overlay
    draws: Positive = 1


class Protocols(RootModel[dict[str, Protocol]]):
    """recipes/protocols.yaml."""


def list_recipes(folder: Path) -> list[str]:
    """Names of the recipes in `folder`; files with sweep in their name are none."""
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem != PROTOCOLS and "sweep" not in file.stem)


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
    """Whether the recipe's own protocol is the honest one, so that there is nothing to run twice."""
    return read_recipe(folder, name, honest=False).protocol == HONEST


def run_recipe(root: Path, name: str, honest: bool, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run one recipe as an experiment named after it, and add what came out to reports/recipes.json.

    `settings` are further `key=value` pairs, taken after those of the recipe. A protocol of several draws makes an
    experiment of each, `split.seed` counting up from 42 whatever `settings` say, and is recorded with the mean, the
    lowest and the highest draw. An experiment of that name is replaced once the new one is there. Raises RunError
    when an experiment fails; what failed stands above, in the stage's own words. Draws that came to an end before have
    opened the test set, and count. What was run on films of another source stays: the new experiment then bears its
    source in its name.
    """
    recipe = read_recipe(root / "recipes", name, honest)
    check_history(root)
    known = flatten(read_yaml(root / paths.PARAMS))
    chosen = {key: value.strip("'\"") for key, _, value in (setting.partition("=") for setting in settings)}
    if unknown := [key for key in chosen if key not in known]:
        raise UserError(f"-S {unknown[0]} is no key of {paths.PARAMS}", "write -S train.lr=0.001")
    source = _source_of(known | recipe.params | chosen)
    experiment = f"{name}-{HONEST}" if honest and not is_honest(root / "recipes", name) else name
    if (other := _read_entries(root).get(experiment)) and _recorded_source(other) != source:
        experiment += "-" + re.sub(r"[^\w.]+", "-", source).strip("-.")
    start = time.monotonic()
    changed = run_git(root, "status", "--porcelain", "-uno", "--", ".", ":!dvc.lock", ":!reports")
    given = [part for setting in settings for part in ("-S", setting)]
    commits, drawn = [], {}
    for draw in range(recipe.draws):
        if recipe.draws > 1:
            drawn["split.seed"] = FIRST_SEED + draw
        arguments = [*to_arguments(recipe.params), *given, *to_arguments(drawn)]
        commits.append(_run_experiment(root, f"{experiment}-draw-{draw + 1}" if draw else experiment, arguments))
        _record(root, experiment, {"source": source}, opened=1)
    found = [json.loads(read_output(root, str(paths.EVALUATION), commit)) for commit in commits]
    model = json.loads(read_output(root, str(paths.TRAINED / "model.json"), commits[0]))
    return _record(
        root,
        experiment,
        {
            "recipe": name,
            "protocol": recipe.protocol,
            "published": recipe.published,
            "draws": recipe.draws,
            "test": {key: _summarize([_find(report["test"], key) for report in found]) for key in SHOWN},
            "val_auroc": _summarize([report["val"]["metrics"]["auroc"] for report in found]),
            "seconds": round(time.monotonic() - start),
            "settings": [
                setting
                for setting in settings
                if setting not in to_arguments(recipe.params) and setting.partition("=")[0] not in drawn
            ],
            "weights": model["training"]["weights"],
            "data_sha256": model["data_sha256"],
            "git_revision": model["git_revision"] + ("-dirty" if changed else ""),
            "date": datetime.now(UTC).date().isoformat(),
        },
    )


def _record(root: Path, experiment: str, told: Mapping[str, Any], opened: int = 0) -> dict[str, Any]:
    """The entry of an experiment in reports/recipes.json, with what is `told` and the test set `opened` once more."""
    entries = _read_entries(root)
    before = entries.get(experiment, {})
    # The count stands before any result does: a draw that fails leaves those before it counted.
    entries[experiment] = {**before, **told, "times_test_opened": before.get("times_test_opened", 0) + opened}
    write_json(root / ENTRIES, entries)
    write_bytes(root / LEADERBOARD, format_leaderboard(entries).encode())
    return dict(entries[experiment])


def _read_entries(root: Path) -> dict[str, dict[str, Any]]:
    return read_json(root / ENTRIES) if (root / ENTRIES).exists() else {}


def _source_of(params: Mapping[str, Any]) -> str:
    """Where films come from, such as `folder chest_xray.zip`; of a folder or archive the last part of its path."""
    source = str(params.get("data.source", "phantom"))
    place = params.get(_PLACE.get(source, ""), "")
    return f"{source} {Path(place).name if source == 'folder' else place}".strip()


def _recorded_source(entry: Mapping[str, Any]) -> str:
    """The source of an entry; older entries have it in their settings only."""
    settings = dict(setting.partition("=")[::2] for setting in entry.get("settings", ()))
    return str(entry.get("source") or _source_of(settings))


def _run_experiment(root: Path, name: str, arguments: Sequence[str]) -> str:
    """The commit of a new experiment, in the place of an earlier one of that name, which stays where the new one fails.

    A kill leaves the earlier one as NAME-before.
    """
    # Not `exp run --force`, which replaces the experiment too, but runs even the stages that DVC has in its cache.
    aside = f"{name}-before"  # renaming and removing fail where there is nothing of that name
    _call_dvc(root, "exp", "rename", "--force", name, aside)
    earlier = find_commits(root, name)  # of other baselines
    try:
        if _call_dvc(root, "exp", "run", "--temp", "-n", name, *arguments, shown=True):
            raise RunError(f"experiment {name} failed, see above", "cure that and run the recipe again")
        if not (commits := find_commits(root, name) - earlier):
            raise RunError(f"experiment {name} ran, but DVC recorded nothing", "`pulmo doctor` may tell why")
    except BaseException:
        _call_dvc(root, "exp", "rename", aside, name)
        raise
    _call_dvc(root, "exp", "remove", aside)
    return commits.pop()


def _call_dvc(root: Path, *arguments: str, shown: bool = False) -> int:
    """Exit code of a dvc command; on Ctrl-C, of which it hears too, it is left to clean up."""
    output = None if shown else subprocess.DEVNULL
    with subprocess.Popen(**dvc_command(root, *arguments), stdout=output, stderr=output) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def _summarize(estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The estimate of the one draw, or mean, lowest and highest of several."""
    if len(estimates) == 1:
        return dict(estimates[0])
    values = [estimate["value"] for estimate in estimates]
    return {"value": statistics.fmean(values), "low": min(values), "high": max(values)}


def format_leaderboard(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of the experiments run so far, a table for each source of films: each experiment beside what was
    published, how often test was opened, and what was set otherwise than the recipe says."""
    ended = {name: entry for name, entry in sorted(entries.items()) if "test" in entry}  # else no draw series did
    sources = sorted({_recorded_source(entry) for entry in ended.values()})
    lines = []
    for source in sources:
        lines += ["", f"### {source}", ""] if len(sources) > 1 else []
        lines += _tabulate([entry for entry in ended.values() if _recorded_source(entry) == source])
    if any(entry.get("draws", 1) > 1 for entry in ended.values()):
        lines += ["", "Of several draws: mean (lowest–highest), each with films of its own for train, val and test."]
    for name, entry in ended.items():
        changed = [setting for setting in entry["settings"] if not setting.startswith(_NO_CHANGE)]
        if changed:
            lines += ["", f"{name} was run with {', '.join(f'`{setting}`' for setting in changed)}."]
    return "\n".join(lines).lstrip() + "\n"


def _tabulate(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| recipe | protocol | AUROC | accuracy | sensitivity | specificity | F1 | loss | val AUROC | seconds "
        "| test opened |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in sorted({entry["recipe"] for entry in entries}):
        rows = [entry for entry in entries if entry["recipe"] == recipe]
        if published := rows[0]["published"]:
            cells = [f"{published[key]:.3f}" if key in published else "" for key in SHOWN]
            lines.append(f"| {recipe} | published | {' | '.join(cells)} | | | |")
        for entry in sorted(rows, key=lambda row: row["protocol"] == HONEST):
            cells = [_interval(entry["test"][key]) for key in SHOWN]
            draws = f", {entry['draws']} draws" if entry.get("draws", 1) > 1 else ""
            lines.append(
                f"| {recipe} | {entry['protocol']}{draws} | {' | '.join(cells)} | {_interval(entry['val_auroc'])} "
                f"| {entry['seconds']} | {entry['times_test_opened']} |"
            )
    return lines


def fold_leaderboard(board: str, width: int) -> str:
    """The Markdown of a leaderboard for a terminal: a line for the name of each row, and its numbers folded below."""
    lines, heads = [], [""]
    for line in board.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            lines += textwrap.wrap(line, width, break_on_hyphens=False) or [""]
        elif cells[0] == "recipe":
            heads = cells
        elif not cells[0].startswith("---"):
            told = [
                f"{head} {cell}".replace(" ", "\u00a0") for head, cell in zip(heads[2:], cells[2:], strict=True) if cell
            ]
            numbers = textwrap.wrap("  ".join(told), width, initial_indent="  ", subsequent_indent="  ")
            lines += [f"{cells[0]}, {cells[1]}", *(part.replace("\u00a0", " ") for part in numbers)]
    return "\n".join(lines)


def _find(part: Mapping[str, Any], key: str) -> dict[str, float | None]:
    """An estimate out of the report of a split; the loss is the log loss of the network as it was trained."""
    found = part["calibration"]["before"]["log_loss"] if key == "loss" else part["metrics"][key]
    return dict(found)


def _interval(estimate: Mapping[str, float | None]) -> str:
    if estimate["value"] is None:
        return "–"
    low, high = estimate["low"], estimate["high"]
    return f"{estimate['value']:.3f}" + (f" ({low:.3f}–{high:.3f})" if low is not None else "")
