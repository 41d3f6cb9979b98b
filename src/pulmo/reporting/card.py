"""The model card: what a stranger needs to decide whether to trust the model, as Markdown and as one HTML file.

The words stand in templates/model_card.md.jinja. No number does: each comes from the report, the package, the history
of the training or the leakage audit.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pulmo.base.files import write_bytes
from pulmo.films.labels import LABELS
from pulmo.metrics.discrimination import METRICS
from pulmo.metrics.estimates import estimate_text, probability_text

TEMPLATES = Path(__file__).parent / "templates"
SEVERITIES = (2, 3, 5)  # shown of robustness; the first is mild: few decisions should flip
MANY_FLIPS = 0.1
FEW_PATIENTS = 100  # in one class of test
PREVALENCES = (0.05, 0.2, 0.5)
_NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "ppv": "PPV", "npv": "NPV", "mcc": "MCC"}
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


def write_card(
    report: Mapping[str, Any],
    info: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    leakage: Mapping[str, Any],
    source: str,
    resamples: int,
    command: str,
    folder: Path,
) -> None:
    """Write model_card.md, which links the pictures in `folder`/plots, and model_card.html, which holds them.

    `report`: what `evaluation.evaluate_predictions` returns, with the keys shortcuts, robustness and explanation where
    those were measured; `info`: the package's model.json; `history`: rows of reports/history.csv; `leakage`: the audit
    of the split; `source`: a key of SOURCES; `command`: what makes it all again. A picture that is missing is left out.
    """
    about, limits = SOURCES[source]
    text = _render(
        "model_card.md.jinja",
        folder,
        report=report,
        info=info,
        history=history,
        leakage=leakage,
        command=command,
        resamples=resamples,
        drawn=source == "phantom",
        about=about,
        limits=limits,
        labels=LABELS,
        severities=SEVERITIES,
        doubts=list_doubts(report, leakage),
        predictive_values=_predictive_values(report["test"]["curves"]["prevalence"]),
        **{key: report.get(key) for key in ("shortcuts", "robustness", "explanation")},
    )
    _write(text, folder / "model_card.md")


def write_external_report(
    part: Mapping[str, Any],
    info: Mapping[str, Any],
    source: Mapping[str, Any],
    *,
    films: str,
    resamples: int,
    command: str,
    folder: Path,
) -> None:
    """Write report.md and report.html about films from elsewhere into `folder`, whose plots/ holds the pictures.

    `part`: what `evaluation.report_split` returns; `info`: the package's model.json; `source`: where the films come
    from; `films`: their name for the title.
    """
    text = _render(
        "external_report.md.jinja",
        folder,
        part=part,
        info=info,
        locked=info["locked"],
        source=source,
        films=films,
        roc=part["curves"]["roc"],
        resamples=resamples,
        command=command,
    )
    _write(text, folder / "report.md")


def _render(template: str, folder: Path, **values: Any) -> str:
    import jinja2

    def figure(name: str, caption: str) -> str:
        return f"![{caption}](plots/{name}.png)" if (folder / "plots" / f"{name}.png").is_file() else ""

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "estimate": estimate_text,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "probability": probability_text,
        "count": lambda value: f"{value:,.0f}",
        "percent": lambda value: f"{100 * value:.3g}%",
        "share": lambda value: f"{value:.1%}",
        "name": lambda metric: _NAMES.get(metric, metric.replace("_", " ")),
        "n": lambda about: f"{about['films']:,} / {about['patients']:,}",
    }
    text = environment.get_template(template).render(metrics=METRICS, figure=figure, **values)
    return re.sub(r"\n{3,}", "\n\n", text)


def _write(text: str, file: Path) -> None:
    write_bytes(file, text.encode())
    write_bytes(file.with_suffix(".html"), to_html(text, file.parent).encode())


def list_doubts(report: Mapping[str, Any], leakage: Mapping[str, Any]) -> list[str]:
    """What the checks of the report found against the model, one sentence each; empty where they found nothing."""
    test, doubts = report["test"], []
    for key, what in (("patients", "Patients"), ("exact_duplicates", "Pixel-identical films")):
        if crossing := leakage[f"{key}_across_splits"]:
            doubts.append(f"{what} in more than one split: {len(crossing):,}, which makes results too good.")
    if unknown := leakage.get("films_of_unknown_patients"):
        doubts.append(
            f"Films that name no patient: {unknown:,}. A patient may stand in more than one split, and the intervals "
            "take each of these films for a patient."
        )
    auroc = test["metrics"]["auroc"]
    if auroc["value"] is not None and (auroc["low"] is None or auroc["low"] <= 0.5):
        doubts.append(
            f"That it tells the classes better than chance is not shown: AUROC {estimate_text(auroc)} on test."
        )
    for name, gap in report["gap"].items():
        if gap["high"] is not None and gap["high"] < 0:
            doubts.append(f"{name.capitalize()} changes by {estimate_text(gap)} from validation to test.")
    band, error = report["locked"]["abstention"], test["selective"]["error"]
    if band["reached"] and error["low"] is not None and error["low"] > band["target_error"]:
        doubts.append(
            f"Answers outside the abstention band are wrong more often than the {band['target_error']:.3g} aimed at: "
            f"{estimate_text(error)}."
        )
    if (shortcuts := report.get("shortcuts")) and shortcuts["explains"] != "little":
        doubts.append(shortcuts["verdict"])
    ece = test["calibration"]["after"]["ece"]
    if ece["value"] > ece["chance_high"]:
        doubts.append(
            f"Probabilities are off on test: the calibration error (ECE) is {ece['value']:.3f}, while perfect "
            f"calibration would stay below {ece['chance_high']:.3f} in 19 of 20 such tests."
        )
    for name in ("sensitivity", "specificity"):
        gaps = {row["name"]: row["gap"][name] for row in test["subgroups"] if row["gap"][name]["high"] is not None}
        if weak := [f"{group} ({estimate_text(gap)})" for group, gap in gaps.items() if gap["high"] < 0]:
            doubts.append(
                f"{name.capitalize()} on test is lower than among the other films for {', '.join(weak)}; by chance "
                f"alone, one in 40 of such comparisons says so, and there are {len(gaps)}."
            )
    if robustness := report.get("robustness"):
        mild = {row["name"]: row["severities"][SEVERITIES[0] - 1]["flipped"]["value"] for row in robustness["changes"]}
        if shaken := [f"{name} ({share:.0%})" for name, share in mild.items() if share > MANY_FLIPS]:
            doubts.append(f"Mild changes of the image flip many decisions: {', '.join(shaken)}.")
    explanation = report.get("explanation")
    if explanation and explanation["lungs"]:
        heat, area, excess = (explanation["lungs"]["all"][key] for key in ("heat", "area", "excess"))
        if excess["low"] is not None and excess["low"] <= 0:
            doubts.append(
                f"That it looks at the lungs more than chance would is not shown: {estimate_text(heat)} of the heat "
                f"lies in them, and they are {area['value']:.3f} of the film, a difference of {estimate_text(excess)}."
            )
        if not explanation["randomisation"]["passes"]:
            doubts.append("Its heat maps hardly change when the network forgets what it learnt: do not read them.")
    patients = min(test["metrics"][name]["patients"] for name in ("sensitivity", "specificity"))
    if patients < FEW_PATIENTS:
        doubts.append(f"Patients in the smaller class of test: only {patients}, so the intervals are wide.")
    return doubts


def to_html(text: str, folder: Path) -> str:
    """One HTML page of the Markdown `text`, with the pictures that it links relative to `folder` inside."""
    from markdown_it import MarkdownIt

    def embed(link: re.Match[str]) -> str:
        return f'src="data:image/png;base64,{base64.b64encode((folder / link[1]).read_bytes()).decode()}"'

    title = escape(text.lstrip().splitlines()[0].lstrip("# "))
    body = re.sub(r'src="([^":]+\.png)"', embed, MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    style = (TEMPLATES / "model_card.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _predictive_values(curve: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    rows = []
    for wanted in PREVALENCES:
        at = min(range(len(curve["prevalence"])), key=lambda i: abs(curve["prevalence"][i] - wanted))
        row: dict[str, Any] = {"prevalence": curve["prevalence"][at]}
        for name in ("ppv", "npv"):
            row[name] = {"value": curve[name][at], "low": curve[f"{name}_low"][at], "high": curve[f"{name}_high"][at]}
        rows.append(row)
    return rows
