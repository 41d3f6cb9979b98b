"""The leaderboard of published recipes: its record, reports/recipes.json, and how that is shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError
from rich.columns import Columns
from rich.padding import Padding

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes, write_json
from pulmo.base.params import Section
from pulmo.base.tables import render
from pulmo.metrics.estimates import Estimate, ValueInInterval, estimate_text, to_json

ENTRIES, LEADERBOARD = paths.REPORTS / "recipes.json", paths.REPORTS / "recipes.md"
HONEST = "honest"
Result = Annotated[Estimate | ValueInInterval, Field(union_mode="left_to_right")]
Metric = Literal["auroc", "accuracy", "sensitivity", "specificity", "f1", "loss"]
SHOWN: tuple[Metric, ...] = get_args(Metric)
HEADS = ("AUROC", "accuracy", "sensitivity", "specificity", "F1", "loss", "val AUROC", "seconds", "test opened")
# Where films are, and what the leaderboard does not show.
_NO_CHANGE = ("data.", "evaluate.rendered_films", "evaluate.robustness_films", "evaluate.explain_films")
_PLACE = {"kaggle": "data.kaggle.handle", "huggingface": "data.huggingface.repo", "folder": "data.folder.path"}


class Entry(Section):
    """What reports/recipes.json says of one experiment; what is not known of it is not set.

    `published` are results on test. `test` and `val_auroc` are estimates, or of several draws mean, lowest and highest;
    `test` is None until a series of draws has come to its end. `settings` are those that differ from the recipe's.
    `weights` name what training began with; the hashes are of the films' pixels and of data/films.csv.
    """

    recipe: str = ""
    protocol: str = ""
    published: dict[Metric, float] = Field(default_factory=dict)
    draws: int = 1
    test: dict[Metric, Result] | None = None
    val_auroc: Result | None = None
    seconds: int | None = None
    times_test_opened: int = 0
    settings: list[str] = Field(default_factory=list)
    source: str = ""
    weights: str = ""
    data_sha256: str = ""
    films_md5: str = ""
    git_revision: str = ""
    date: str = ""
    not_run: str = ""  # the reason

    def add(self, facts: "Entry") -> "Entry":
        """This entry with what is set in `facts`."""
        return self.model_copy(update={name: getattr(facts, name) for name in facts.model_fields_set})


Entries = Mapping[str, Entry]  # by the name of the experiment


def read_entries(root: Path) -> dict[str, Entry]:
    """The entry of each experiment by its name; none where no recipe was run. UserError where the file is damaged."""
    if not (file := root / ENTRIES).exists():
        return {}
    try:
        return TypeAdapter(dict[str, Entry]).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {place}: {first['msg']}", f"`git checkout {ENTRIES}` takes back a change") from error


def record(root: Path, experiment: str, facts: Entry, opened: int = 0) -> Entry:
    """Add `facts` to the entry of an experiment, and `opened` to its openings of the test set; returns the entry."""
    with FileLock(root / ".dvc/tmp/pulmo-recipes.lock"):  # else of two that end at once one loses its count
        entries = read_entries(root)
        before = entries.get(experiment, Entry())
        # The count stands before any result does: a draw that fails leaves those before it counted.
        count = Entry(not_run="", times_test_opened=before.times_test_opened + opened)
        entries[experiment] = before.add(count).add(facts)
        write_json(root / ENTRIES, {name: _to_json(entry) for name, entry in entries.items()})
        write_bytes(root / LEADERBOARD, format_leaderboard(entries).encode())
    return entries[experiment]


def _to_json(entry: Entry) -> dict[str, Any]:
    """The fields that say something."""
    return {name: to_json(value) for name, value in entry if name in entry.model_fields_set and value not in ("", None)}


def name_source(params: Mapping[str, Any]) -> str:
    """The source of the films, such as `folder chest_xray.zip`; of a folder or archive the last part of its path."""
    source = str(params.get("data.source", "phantom"))
    place = params.get(_PLACE.get(source, ""), "")
    return f"{source} {Path(place).name if source == 'folder' else place}".strip()


def recorded_source(entry: Entry) -> str:
    """The source of an entry; older entries have it in their settings only."""
    return entry.source or name_source(dict(setting.partition("=")[::2] for setting in entry.settings))


def format_leaderboard(entries: Entries) -> str:
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


def show_leaderboard(entries: Entries, width: int) -> str:
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


def _ended(entries: Entries) -> dict[str, Entry]:
    """The entries by name, less those of which no series of draws came to its end."""
    return {name: entry for name, entry in sorted(entries.items()) if entry.test}


def _tables(entries: Entries) -> list[tuple[str, list[list[str]]]]:
    """The rows for each source of films, and for each content that it had, with a title where there are several."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in _ended(entries).values():
        groups.setdefault((recorded_source(entry), entry.films_md5), []).append(entry)
    for entry in (entry for _, entry in sorted(entries.items()) if entry.not_run and not entry.test):
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
    for recipe in sorted({entry.recipe for entry in entries}):
        runs = [entry for entry in entries if entry.recipe == recipe]
        if published := runs[0].published:
            cells = [f"{published[key]:.3f}" if key in published else "" for key in SHOWN]
            rows.append([recipe, "published", *cells])
        for entry in sorted(runs, key=lambda run: run.protocol == HONEST):
            draws = f", {entry.draws} draws" if entry.draws > 1 else ""
            rows.append([recipe, entry.protocol + draws, *_cells(entry)])
    return rows


def _cells(entry: Entry) -> list[str]:
    if not (entry.test and entry.val_auroc):
        return [f"not run here: {entry.not_run}"]
    numbers = [estimate_text(result) for result in (*(entry.test[key] for key in SHOWN), entry.val_auroc)]
    return [*numbers, str(entry.seconds), str(entry.times_test_opened)]


def _notes(entries: Entries) -> list[str]:
    ended = _ended(entries)
    notes = []
    if any(entry.draws > 1 for entry in ended.values()):
        notes.append("Of several draws: mean (lowest–highest), each with films of its own for train, val and test.")
    for name, entry in ended.items():
        changed = [setting for setting in entry.settings if not setting.startswith(_NO_CHANGE)]
        if changed:
            notes.append(f"{name} was run with {', '.join(f'`{setting}`' for setting in changed)}.")
    return notes


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |" + " |" * (len(HEADS) + 2 - len(cells))
