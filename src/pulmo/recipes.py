"""Published recipes as DVC experiments, and the leaderboard that sets them side by side.

A recipe in recipes/NAME.yaml overlays params.yaml; recipes/protocols.yaml holds the ways to split. Experiments run in a
temporary copy of the project (`dvc exp run --temp`), so that params.yaml and the workspace stay as they are.
"""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pulmo.files import read_json, write_bytes, write_json
from pulmo.revisions import read_output

PROTOCOLS = "protocols"
HONEST = "honest"
_NO_CHANGE = ("data.", "evaluate.robustness_films", "evaluate.explain_films")  # where films are; what is not shown here
SHOWN = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "loss")


def list_recipes(folder: Path) -> list[str]:
    """Names of the recipes in `folder`."""
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem not in (PROTOCOLS, "sweep"))


def read_recipe(folder: Path, name: str, honest: bool) -> tuple[dict[str, Any], str, list[str]]:
    """The published numbers, the name of the protocol, and `key=value` settings for `dvc exp run -S`."""
    if name not in list_recipes(folder):
        raise ValueError(f"no recipe {name!r} in {folder}; there are {', '.join(list_recipes(folder))}")
    recipe = _read(folder / f"{name}.yaml")
    protocol = HONEST if honest else recipe["protocol"]
    protocols = _read(folder / f"{PROTOCOLS}.yaml")
    if protocol not in protocols:
        raise ValueError(f"{folder / name}.yaml: protocol {protocol!r} is not in {PROTOCOLS}.yaml")
    overlay = recipe["params"]
    for section, values in protocols[protocol].items():
        overlay[section] = {**overlay.get(section, {}), **values}
    return recipe["published"], protocol, [f"{key}={_text(value)}" for key, value in _flatten(overlay)]


def is_honest(folder: Path, name: str) -> bool:
    """Whether the recipe's own protocol is the honest one, so that there is nothing to run twice."""
    return read_recipe(folder, name, honest=False)[1] == HONEST


def run_recipe(root: Path, name: str, honest: bool, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run one recipe as an experiment named after it, and add what came out to reports/recipes.json.

    `settings` are further `key=value` pairs, taken last. An experiment of that name is replaced. Raises ValueError when
    the experiment fails; what failed stands above, in the stage's own words.
    """
    published, protocol, own = read_recipe(root / "recipes", name, honest)
    experiment = f"{name}-{HONEST}" if honest and not is_honest(root / "recipes", name) else name
    arguments = [part for setting in (*own, *settings) for part in ("-S", setting)]
    start = time.monotonic()
    # Not `exp run --force`, which replaces the experiment too, but runs even the stages that DVC has in its cache.
    subprocess.run(["dvc", "exp", "remove", experiment], cwd=root, capture_output=True)
    done = subprocess.run(["dvc", "exp", "run", "--temp", "-n", experiment, *arguments], cwd=root)
    if done.returncode:
        raise ValueError(f"experiment {experiment} failed, see above")
    report = json.loads(read_output(root, "reports/evaluation.json", experiment))
    model = json.loads(read_output(root, "models/trained/model.json", experiment))
    file = root / "reports" / "recipes.json"
    entries = read_json(file) if file.exists() else {}
    entries[experiment] = {
        "recipe": name,
        "protocol": protocol,
        "published": published.get("test", {}),
        "test": {key: _find(report["test"], key) for key in SHOWN},
        "val_auroc": report["val"]["metrics"]["auroc"],
        "seconds": round(time.monotonic() - start),
        "times_test_opened": entries.get(experiment, {}).get("times_test_opened", 0) + 1,
        "settings": list(settings),
        "weights": model["training"]["weights"],
        "data_sha256": model["data_sha256"],
        "git_revision": model["git_revision"],
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(file, entries)
    write_bytes(root / "reports" / "recipes.md", format_leaderboard(entries).encode())
    return dict(entries[experiment])


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
            lines.append(
                f"| {recipe} | {entry['protocol']} | {' | '.join(cells)} | {_interval(entry['val_auroc'])} "
                f"| {entry['seconds']} | {entry['times_test_opened']} |"
            )
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


def _flatten(overlay: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in overlay.items():
        flat += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return flat


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
