"""The experiments as a table for a terminal: best first, and the params in which they differ."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from pulmo.base.errors import UserError
from pulmo.base.tables import align, render
from pulmo.experiments.leaderboard import name_source
from pulmo.experiments.listing import Experiment

SHOWN = ("val.auroc", "test.auroc", "test.accuracy", "test.sensitivity", "test.specificity", "test.f1")
_SHORT = {"auroc_rendered": "rend", "accuracy": "acc", "sensitivity": "sens", "specificity": "spec"}
_AGE, _METRIC, _GAP, _DIFFERENCES = 4, 5, 2, 16  # least widths


def format_experiments(
    experiments: Sequence[Experiment], sort: str = SHOWN[0], width: int = 100, now: datetime | None = None
) -> str:
    """A table at most `width` (60 or more) wide: best first by the metric `sort`, then what has none and why.

    Experiments of other films, or of the same in other splits, stand in tables of their own: they are not ranked
    together. Long names stand on a line of their own, and metrics that a narrow table cannot hold are left out. Rows
    name the params in which they differ from the first commit among them, or else from what most of them have; those
    values stand below the table.
    """
    known = {key for experiment in experiments for key in experiment.metrics}
    if known and sort not in known:
        raise UserError(f"no experiment has the metric {sort}", f"there are {', '.join(sorted(known))}")
    now = now or datetime.now()
    tables: list[str] = []
    for data, group in _by_data(experiments).items():
        title = f"\nvalidated and tested on other films ({name_source(group[0].params)}, data {data[:7]}):\n\n"
        tables.append((title if tables else "") + _format_table(group, sort, width, now))
    return "\n".join(tables)


def _by_data(experiments: Sequence[Experiment]) -> dict[str, list[Experiment]]:
    """The experiments by the hash of their data; first those of the first commit, with all that has no data yet."""
    commits = [experiment for experiment in experiments if experiment.state == "Commit"]
    first = next((experiment.data for experiment in [*commits, *experiments] if experiment.data), "")
    groups: dict[str, list[Experiment]] = {first: []}
    for experiment in experiments:
        groups.setdefault(experiment.data or first, []).append(experiment)
    return groups


def _format_table(experiments: Sequence[Experiment], sort: str, width: int, now: datetime) -> str:
    """The table of experiments of the same data."""
    reference = next((experiment for experiment in experiments if experiment.state == "Commit"), None)
    usual, changed = _differences(experiments, reference)
    labels = _labels(experiments)
    wide = min(max(map(len, [*labels, "experiment"])), max(width - 74, 12))
    metrics = _fitting((*SHOWN, *({sort} - set(SHOWN))), sort, width - wide - _AGE - _GAP - _DIFFERENCES)
    heads = [(split, _SHORT.get(name, name)) for split, name in (key.split(".", 1) for key in metrics)]
    widths = [wide, _AGE, *(max(_METRIC, *map(len, head)) for head in heads)]
    rows = [
        ["", "", *(split for split, _ in heads), ""],
        ["experiment", "age", *(name for _, name in heads), "differs in"],
    ]
    for place in sorted(range(len(labels)), key=lambda place: -experiments[place].metrics.get(sort, float("-inf"))):
        experiment, label = experiments[place], labels[place]
        if len(label) > wide:
            rows.append([label])
            label = ""
        age = _age(experiment.created, now)
        rows.append([label, age, *_cells(experiment, metrics, changed[place])])
    below = ["", f"{reference.name if reference else 'the others'}: {usual}"] if usual else []
    return render([*(align([row], range(1, len(widths)), widths) for row in rows), *below], width)


def _labels(experiments: Sequence[Experiment]) -> list[str]:
    """Names, with the baseline where two are the same."""
    names = Counter(experiment.name for experiment in experiments)
    return [
        f"{experiment.name} ({experiment.baseline[:7]})" if names[experiment.name] > 1 else experiment.name
        for experiment in experiments
    ]


def _fitting(metrics: Sequence[str], sort: str, room: int) -> Sequence[str]:
    """The metrics that `room` columns can hold, `sort` always among them."""
    fitting = metrics[: max((room - _GAP) // (_METRIC + _GAP), 1)]
    return fitting if sort in fitting else (*fitting[:-1], sort)


def _cells(experiment: Experiment, metrics: Sequence[str], changed: str) -> list[str]:
    """The metrics and the changed params; of an experiment that has no metrics its state, and why."""
    if experiment.metrics:
        values = [experiment.metrics.get(key) for key in metrics]
        return [*("–" if value is None else f"{value:.3f}" for value in values), changed]
    state = experiment.state.lower()
    reason = f"{state}: {experiment.error}" if experiment.error else state
    return [f"{reason} [{changed}]" if changed else reason]


def _differences(experiments: Sequence[Experiment], reference: Experiment | None) -> tuple[str, list[str]]:
    """Reference or most common value of each param that is not the same everywhere, and what each has instead."""
    values = {
        key: [str(experiment.params.get(key, "–")) for experiment in experiments]
        for key in sorted({key for experiment in experiments for key in experiment.params})
    }
    differing = {key: column for key, column in values.items() if len(set(column)) > 1}
    common = {key: Counter(column).most_common(1)[0][0] for key, column in differing.items()}
    usual = {key: str(reference.params.get(key, "–")) if reference else common[key] for key in differing}
    ends = [key.rpartition(".")[2] for key in differing]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(differing, ends, strict=True)}
    own = [
        " ".join(f"{short[key]}={column[row]}" for key, column in differing.items() if column[row] != usual[key])
        for row in range(len(experiments))
    ]
    return " ".join(f"{key}={value}" for key, value in usual.items()), own


def _age(created: str, now: datetime) -> str:
    if not created:
        return ""
    minutes = max(0.0, (now - datetime.fromisoformat(created)).total_seconds() / 60)
    if minutes < 60:
        return f"{minutes:.0f}m"
    if minutes < 48 * 60:
        return f"{minutes / 60:.0f}h"
    return f"{minutes / (24 * 60):.0f}d"
