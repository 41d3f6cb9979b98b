"""Published recipes as DVC experiments, and the leaderboard that sets them side by side.

A recipe in recipes/NAME.yaml overlays params.yaml; recipes/protocols.yaml holds the ways to split. Experiments run in a
temporary copy of the project (`dvc exp run --temp`), so that params.yaml and the workspace stay as they are.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pulmo.experiments import to_arguments
from pulmo.files import read_json, write_bytes, write_json
from pulmo.revisions import read_output
from pulmo.tracking import flatten

PROTOCOLS = "protocols"
HONEST = "honest"
FIRST_SEED = 42
# Where films are, and what the leaderboard does not show.
_NO_CHANGE = ("data.", "evaluate.rendered_films", "evaluate.robustness_films", "evaluate.explain_films")
SHOWN = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "loss")


def list_recipes(folder: Path) -> list[str]:
    """Names of the recipes in `folder`."""
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem not in (PROTOCOLS, "sweep"))


@dataclass(frozen=True)
class Recipe:
    """A recipe under one protocol: the published numbers of the test set, how many draws of films to run it on, and
    params by their flat names."""

    name: str
    protocol: str
    published: dict[str, float]
    draws: int
    params: dict[str, Any]


def read_recipe(folder: Path, name: str, honest: bool) -> Recipe:
    """The recipe as published, or under the honest protocol."""
    if name not in list_recipes(folder):
        raise ValueError(f"no recipe {name!r} in {folder}; there are {', '.join(list_recipes(folder))}")
    content = _read(folder / f"{name}.yaml")
    protocol = HONEST if honest else content["protocol"]
    protocols = _read(folder / f"{PROTOCOLS}.yaml")
    if protocol not in protocols:
        raise ValueError(f"{folder / name}.yaml: protocol {protocol!r} is not in {PROTOCOLS}.yaml")
    overlay, way = content["params"], protocols[protocol]
    draws = way.pop("draws", 1)
    for section, values in way.items():
        overlay[section] = {**overlay.get(section, {}), **values}
    return Recipe(name, protocol, content["published"].get("test", {}), draws, flatten(overlay))


def is_honest(folder: Path, name: str) -> bool:
    """Whether the recipe's own protocol is the honest one, so that there is nothing to run twice."""
    return read_recipe(folder, name, honest=False).protocol == HONEST


def run_recipe(root: Path, name: str, honest: bool, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run one recipe as an experiment named after it, and add what came out to reports/recipes.json.

    `settings` are further `key=value` pairs, taken last. An experiment of that name is replaced. A protocol of several
    draws makes an experiment of each, `split.seed` counting up from 42, and is recorded with the mean, the lowest and
    the highest draw. Raises ValueError when an experiment fails; what failed stands above, in the stage's own words.
    """
    recipe = read_recipe(root / "recipes", name, honest)
    experiment = f"{name}-{HONEST}" if honest and not is_honest(root / "recipes", name) else name
    start = time.monotonic()
    given = [part for setting in settings for part in ("-S", setting)]
    found = []
    for draw in range(recipe.draws):
        drawn = {"split.seed": FIRST_SEED + draw} if recipe.draws > 1 else {}
        draw_name = f"{experiment}-draw-{draw + 1}" if draw else experiment
        found.append(_run_experiment(root, draw_name, [*to_arguments(recipe.params | drawn), *given]))
    model = json.loads(read_output(root, "models/trained/model.json", experiment))
    file = root / "reports" / "recipes.json"
    entries = read_json(file) if file.exists() else {}
    entries[experiment] = {
        "recipe": name,
        "protocol": recipe.protocol,
        "published": recipe.published,
        "draws": recipe.draws,
        "test": {key: _summarize([_find(report["test"], key) for report in found]) for key in SHOWN},
        "val_auroc": _summarize([report["val"]["metrics"]["auroc"] for report in found]),
        "seconds": round(time.monotonic() - start),
        "times_test_opened": entries.get(experiment, {}).get("times_test_opened", 0) + recipe.draws,
        "settings": [setting for setting in settings if setting not in to_arguments(recipe.params)],
        "weights": model["training"]["weights"],
        "data_sha256": model["data_sha256"],
        "git_revision": model["git_revision"],
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(file, entries)
    write_bytes(root / "reports" / "recipes.md", format_leaderboard(entries).encode())
    return dict(entries[experiment])


def _run_experiment(root: Path, name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The report of a new experiment, in the place of an earlier one of that name."""
    # Not `exp run --force`, which replaces the experiment too, but runs even the stages that DVC has in its cache.
    subprocess.run(["dvc", "exp", "remove", name], cwd=root, capture_output=True)
    if subprocess.run(["dvc", "exp", "run", "--temp", "-n", name, *arguments], cwd=root).returncode:
        raise ValueError(f"experiment {name} failed, see above")
    report: dict[str, Any] = json.loads(read_output(root, "reports/evaluation.json", name))
    return report


def _summarize(estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The estimate of the one draw, or mean, lowest and highest of several."""
    if len(estimates) == 1:
        return dict(estimates[0])
    values = [estimate["value"] for estimate in estimates]
    return {"value": statistics.fmean(values), "low": min(values), "high": max(values)}


def format_leaderboard(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown table of the experiments run so far, each beside what was published, how often test was opened, and what
    was set otherwise than the recipe says."""
    lines = [
        "| recipe | protocol | AUROC | accuracy | sensitivity | specificity | F1 | loss | val AUROC | seconds "
        "| test opened |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    recipes = list(dict.fromkeys(entry["recipe"] for entry in entries.values()))
    for recipe in sorted(recipes):
        rows = [entry for entry in entries.values() if entry["recipe"] == recipe]
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
    if any(entry.get("draws", 1) > 1 for entry in entries.values()):
        lines += ["", "Of several draws: mean (lowest–highest), each with films of its own for train, val and test."]
    for name, entry in sorted(entries.items()):
        changed = [setting for setting in entry["settings"] if not setting.startswith(_NO_CHANGE)]
        if changed:
            lines += ["", f"{name} was run with {', '.join(f'`{setting}`' for setting in changed)}."]
    return "\n".join(lines) + "\n"


def _find(part: Mapping[str, Any], key: str) -> dict[str, float | None]:
    """An estimate out of the report of a split; the loss is the log loss of the network as it was trained."""
    found = part["calibration"]["before"]["log_loss"] if key == "loss" else part["metrics"][key]
    return dict(found)


def _interval(estimate: Mapping[str, float | None]) -> str:
    if estimate["value"] is None:
        return "–"
    low, high = estimate["low"], estimate["high"]
    return f"{estimate['value']:.3f}" + (f" ({low:.3f}–{high:.3f})" if low is not None else "")


def _read(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold one mapping")
    return content
