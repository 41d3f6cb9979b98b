"""The model card: what a stranger needs to decide whether to trust the model, as Markdown and as one HTML file.

The words stand in templates/model_card.md.jinja. No number does: each comes from the report, the package, the history
of the training or the leakage audit.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pulmo.base.files import write_bytes
from pulmo.films.rows.labels import LABELS
from pulmo.metrics.discrimination import METRIC_NAMES
from pulmo.metrics.estimates import ValueInInterval, estimate_text, probability_text
from pulmo.reporting.doubts import list_doubts
from pulmo.reporting.markdown import Markdown, finalize, to_block, to_code, to_html
from pulmo.reporting.plots import pretty
from pulmo.reporting.report import ExternalReport, Report

TEMPLATES = Path(__file__).parent / "templates"
PREVALENCES = (0.05, 0.2, 0.5)
_KERMANY = (
    "Frontal films of children one to five years old, taken in routine care at one hospital (Guangzhou Women and "
    "Children's Medical Center), graded by two physicians, those of the published test set checked by a third "
    "([Kermany et al. 2018](https://doi.org/10.17632/rscbjbr9sj), CC BY 4.0)."
)
_KERMANY_LIMITS = (
    "One centre, one age group; neither age nor sex of a child is published, nor the date of a film.",
    "A film is either normal or shows pneumonia: every other disease of the chest is missing.",
    "NORMAL and PNEUMONIA films passed through different software: what it left in the originals alone tells much.",
    "File names tell the patient of a PNEUMONIA film; those of NORMAL films group films but prove no patient.",
)
SOURCES: dict[str, tuple[str, Sequence[str]]] = {
    "phantom": (
        "Phantom films: a program drew them, label and all.",
        ("Nothing about patients, hospitals or real films follows from any number on this page.",),
    ),
    "kaggle": (_KERMANY, _KERMANY_LIMITS),
    "huggingface": (f"{_KERMANY} This copy was resized and split anew by whoever published it.", _KERMANY_LIMITS),
    "folder": (
        "Films from a folder of the user's own.",
        ("Who the patients are, who labelled the films and how, is known to their owner, not to this card.",),
    ),
}


@dataclass(frozen=True)
class Facts:
    """The facts of a page beside the numbers of a report."""

    info: Mapping[str, Any]  # the package's model.json
    resamples: int  # behind every interval
    command: str  # makes it all again
    experiment: str = ""
    date: str = ""  # of the evaluation


def write_card(
    report: Report,
    facts: Facts,
    history: Sequence[Mapping[str, float]],
    leakage: Mapping[str, Any],
    source: str,
    folder: Path,
) -> None:
    """Write model_card.md, which links the pictures in `folder`/plots, and model_card.html, which holds them.

    `history`: rows of reports/history.csv; `leakage`: the audit of the split; `source`: a key of SOURCES. A picture
    that is missing is left out.
    """
    about, limits = SOURCES[source]
    values = {
        "report": report,
        "val": report.val,
        "test": report.test,
        "locked": report.locked,
        "explanation": report.findings.get("explanation"),
        "history": history,
        "leakage": leakage,
        "drawn": source == "phantom",
        "about": Markdown(about),
        "limits": limits,
        "labels": LABELS,
        "doubts": list_doubts(report, leakage),
        "predictive_values": _predictive_values(report.test.curves.prevalence),
        "version": version("pulmo"),
        **vars(facts),
    }
    environment = _open_templates(folder)
    sections = []
    for section in report.sections:
        template = environment.from_string(section.template.read_text(encoding="utf-8"))
        text = template.render(part=section.finding, **values).strip() if section.finding else ""
        sections.append({"title": section.title, "text": Markdown(text)})
    text = environment.get_template("model_card.md.jinja").render(sections=sections, **values)
    _write(text, folder / "model_card.md")


def write_external_report(
    report: ExternalReport, facts: Facts, source: Mapping[str, Any], films: str, folder: Path
) -> None:
    """Write report.md and report.html about films from elsewhere into `folder`, whose plots/ holds the pictures.

    `source`: where the films come from; `films`: their name for the title.
    """
    template = _open_templates(folder).get_template("external_report.md.jinja")
    text = template.render(
        report=report,
        part=report.split,
        locked=facts.info["locked"],
        source=source,
        films=films,
        roc=report.split.curves.roc,
        version=version("pulmo"),
        **vars(facts),
    )
    _write(text, folder / "report.md")


def _open_templates(folder: Path) -> Environment:
    """The templates and their filters; pictures are those of `folder`/plots."""

    def figure(name: str, caption: str) -> Markdown:
        drawn = (folder / "plots" / f"{name}.png").is_file()
        return Markdown(f"![{caption}](plots/{name}.png)" if drawn else "")

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # that is for HTML
        finalize=finalize,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": Markdown,
        "code": to_code,
        "block": to_block,
        "estimate": estimate_text,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "probability": probability_text,
        "count": lambda value: f"{value:,.0f}",
        "percent": lambda value: f"{100 * value:.3g}%",
        "share": lambda value: f"{value:.1%}",
        "name": pretty,
        "n": lambda about: f"{about.films:,} / {about.patients:,}",
    }
    environment.globals |= {"metrics": METRIC_NAMES, "figure": figure}
    return environment


def in_short(card: str) -> str:
    """The section of model_card.md that says it all in a few sentences; empty where a card has none."""
    _, _, rest = card.partition("\n## In short\n")
    return rest.partition("\n## ")[0].strip()


def _write(text: str, file: Path) -> None:
    text = re.sub(r"\n{3,}", "\n\n", text)
    write_bytes(file, text.encode())
    drawn = [f"plots/{picture.name}" for picture in (file.parent / "plots").glob("*.png")]
    write_bytes(file.with_suffix(".html"), to_html(text, file.parent, drawn).encode())


def _predictive_values(curve: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    rows = []
    for wanted in PREVALENCES:
        at = min(range(len(curve["prevalence"])), key=lambda i: abs(curve["prevalence"][i] - wanted))
        row: dict[str, Any] = {"prevalence": curve["prevalence"][at]}
        for name in ("ppv", "npv"):
            row[name] = ValueInInterval(curve[name][at], curve[f"{name}_low"][at], curve[f"{name}_high"][at])
        rows.append(row)
    return rows
