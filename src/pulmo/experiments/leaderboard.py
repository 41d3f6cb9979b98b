"""The leaderboard of published recipes: its record, reports/recipes.json, and how that is shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from rich.columns import Columns
from rich.padding import Padding

from pulmo.base import paths
from pulmo.base.files import read_json, write_bytes, write_json
from pulmo.base.tables import render
from pulmo.metrics.estimates import ValueInInterval, estimate_text

ENTRIES, LEADERBOARD = paths.REPORTS / "recipes.json", paths.REPORTS / "recipes.md"
HONEST = "honest"
Metric = Literal["auroc", "accuracy", "sensitivity", "specificity", "f1", "loss"]
SHOWN: tuple[Metric, ...] = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "loss")
HEADS = ("AUROC", "accuracy", "sensitivity", "specificity", "F1", "loss", "val AUROC", "seconds", "test opened")
Entry = Mapping[str, Any]
# Where films are, and what the leaderboard does not show.
_NO_CHANGE = ("data.", "evaluate.rendered_films", "evaluate.robustness_films", "evaluate.explain_films")
_PLACE = {"kaggle": "data.kaggle.handle", "huggingface": "data.huggingface.repo", "folder": "data.folder.path"}


def read_entries(root: Path) -> dict[str, dict[str, Any]]:
    """The entry of each experiment by its name; none where no recipe was run."""
    return read_json(root / ENTRIES) if (root / ENTRIES).exists() else {}


def record(root: Path, experiment: str, facts: Mapping[str, Any], opened: int = 0) -> dict[str, Any]:
    """Add `facts` to the entry of an experiment, and `opened` to its openings of the test set; returns the entry."""
    with FileLock(root / ".dvc/tmp/pulmo-recipes.lock"):  # else of two that end at once one loses its count
        entries = read_entries(root)
        before = {key: value for key, value in entries.get(experiment, {}).items() if key != "not_run"}
        # The count stands before any result does: a draw that fails leaves those before it counted.
        entries[experiment] = {**before, **facts, "times_test_opened": before.get("times_test_opened", 0) + opened}
        write_json(root / ENTRIES, entries)
        write_bytes(root / LEADERBOARD, format_leaderboard(entries).encode())
    return dict(entries[experiment])


def name_source(params: Mapping[str, Any]) -> str:
    """The source of the films, such as `folder chest_xray.zip`; of a folder or archive the last part of its path."""
    source = str(params.get("data.source", "phantom"))
    place = params.get(_PLACE.get(source, ""), "")
    return f"{source} {Path(place).name if source == 'folder' else place}".strip()


def recorded_source(entry: Entry) -> str:
    """The source of an entry; older entries have it in their settings only."""
    settings = dict(setting.partition("=")[::2] for setting in entry.get("settings", ()))
    return str(entry.get("source") or name_source(settings))


def format_leaderboard(entries: Mapping[str, Entry]) -> str:
    """Markdown of the experiments run so far, a table for each source of films: each experiment beside what was
    published, how often test was opened, and what was set otherwise than the recipe says."""
    lines = []
    for title, rows in _tables(entries):
        lines += ["", f"### {title}", ""] if title else []
        lines += [_markdown(["recipe", "protocol", *HEADS]), "|" + "---|" * (len(HEADS) + 2)]
        lines += [_markdown(row) for row in rows]
    for note in _notes(entries):
        lines += ["", note]
    return "\n".join(lines).lstrip() + "\n"


def show_leaderboard(entries: Mapping[str, Entry], width: int) -> str:
    """The same for a terminal: a line for the name of each row, and its numbers below it."""
    parts: list[Any] = []
    for title, rows in _tables(entries):
        parts += ["", title, ""] if title else []
        for recipe, protocol, *cells in rows:
            heads = HEADS if len(cells) > 1 else ("",)
            numbers = [f"{head} {cell}".strip() for head, cell in zip(heads, cells, strict=False) if cell]
            parts += [f"{recipe}, {protocol}", Padding(Columns(numbers, padding=(0, 2, 0, 0)), (0, 0, 0, 2))]
    for note in _notes(entries):
        parts += ["", note]
    return render(parts, width)


def _ended(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries by name, less those of which no series of draws came to its end."""
    return {name: entry for name, entry in sorted(entries.items()) if "test" in entry}


def _tables(entries: Mapping[str, Entry]) -> list[tuple[str, list[list[str]]]]:
    """The rows for each source of films, and for each content that it had, with a title where there are several."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in _ended(entries).values():
        groups.setdefault((recorded_source(entry), entry.get("films_md5", "")), []).append(entry)
    for entry in (entry for _, entry in sorted(entries.items()) if "not_run" in entry and "test" not in entry):
        source = recorded_source(entry)
        place = next((group for group in sorted(groups) if group[0] == source), (source, ""))
        groups.setdefault(place, []).append(entry)
    sources = [source for source, _ in groups]
    return [
        (_title(source, films, sources) if len(groups) > 1 else "", _rows(group))
        for (source, films), group in sorted(groups.items())
    ]


def _title(source: str, films: str, sources: Sequence[str]) -> str:
    """The source, and where it had other films at other times a part of their hash."""
    return source if sources.count(source) == 1 else f"{source}, films {films[:7] or 'not recorded'}"


def _rows(entries: Sequence[Entry]) -> list[list[str]]:
    """Recipe, protocol and cells for HEADS, fewer for what was published and one for what was not run; each run stands
    below what was published."""
    rows = []
    for recipe in sorted({entry["recipe"] for entry in entries}):
        runs = [entry for entry in entries if entry["recipe"] == recipe]
        if published := runs[0]["published"]:
            cells = [f"{published[key]:.3f}" if key in published else "" for key in SHOWN]
            rows.append([recipe, "published", *cells])
        for entry in sorted(runs, key=lambda run: run["protocol"] == HONEST):
            draws = f", {entry['draws']} draws" if entry.get("draws", 1) > 1 else ""
            if "test" not in entry:
                rows.append([recipe, entry["protocol"] + draws, f"not run here: {entry['not_run']}"])
                continue
            numbers = [_interval(estimate) for estimate in (*map(entry["test"].get, SHOWN), entry["val_auroc"])]
            counts = [str(entry["seconds"]), str(entry["times_test_opened"])]
            rows.append([recipe, entry["protocol"] + draws, *numbers, *counts])
    return rows


def _notes(entries: Mapping[str, Entry]) -> list[str]:
    ended = _ended(entries)
    notes = []
    if any(entry.get("draws", 1) > 1 for entry in ended.values()):
        notes.append("Of several draws: mean (lowest–highest), each with films of its own for train, val and test.")
    for name, entry in ended.items():
        changed = [setting for setting in entry["settings"] if not setting.startswith(_NO_CHANGE)]
        if changed:
            notes.append(f"{name} was run with {', '.join(f'`{setting}`' for setting in changed)}.")
    return notes


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |" + " |" * (len(HEADS) + 2 - len(cells))


def _interval(estimate: Mapping[str, float | None]) -> str:
    return estimate_text(ValueInInterval(estimate["value"], estimate["low"], estimate["high"]))
