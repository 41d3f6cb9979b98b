import html
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy_report import CALLED, HASHES, HISTORY, INFO, LEAKAGE, change, write

from pulmo.evaluation.probes.explanation import Explanation
from pulmo.metrics.calibration import Temperature
from pulmo.metrics.decisions import Abstention, OperatingPoint
from pulmo.metrics.estimates import Estimate, estimate_text
from pulmo.metrics.locked import Locked
from pulmo.metrics.reliability import Chance
from pulmo.reporting.canvas import drawing
from pulmo.reporting.card import SOURCES, Facts, write_card
from pulmo.reporting.doubts import list_doubts
from pulmo.reporting.markdown import to_html
from pulmo.reporting.report import Finding, Section


def every_number(content):
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from every_number(part)
    elif isinstance(content, int | float):
        yield content


def test_every_decimal_comes_from_the_report(report, tmp_path):
    known = {f"{abs(number):.3f}" for number in every_number(report.to_json())}
    markdown = write(tmp_path, report)[0]
    decimals = re.findall(r"(?<![\d.])\d+\.\d{3}(?![\d.])", markdown)
    assert len(decimals) > 300
    assert set(decimals) <= known


def test_the_headline_numbers_are_there(report, tmp_path):
    markdown = write(tmp_path, report)[0]
    auroc = report.test.metrics["auroc"]
    assert f"an AUROC of **{auroc.value:.3f} ({auroc.low:.3f}–{auroc.high:.3f})**" in markdown
    for text in (
        "120 / 120",
        "took 71 seconds on cpu",
        "epoch 2 was kept",
        "dvc repro --pull",
        "0.0007",
        *HASHES.values(),
    ):
        assert text in markdown
    assert report.findings["shortcuts"].verdict in markdown
    assert all(f"**{row.name}**" in markdown for row in report.findings["robustness"].changes)
    assert not re.search(r"\{\{|\{%|None|nan", markdown)


@pytest.mark.parametrize(("licence", "stated"), [("cc-by-nc-4.0", "cc-by-nc-4.0"), ("", "not stated")])
def test_weights_from_a_hub_are_named_with_their_licence(report, tmp_path, monkeypatch, licence, stated):
    origin = {"source": "huggingface.co/a/b_c", "revision": "0f1e", "file": "m.bin", "sha256": "ab" * 32}
    monkeypatch.setitem(INFO, "origin", origin | {"licence": licence})
    markdown = write(tmp_path, report)[0]
    assert "`m.bin` of `huggingface.co/a/b_c`, revision `0f1e`, SHA-256 `abab" in markdown
    assert f"licence: {stated}." in markdown


def test_the_page_needs_nothing_from_outside(report, tmp_path):
    for name in ("roc", "confusion"):
        with drawing(tmp_path / "plots" / f"{name}.png", 2, 2) as (ax,):
            ax.set_title(name)
    markdown, page = write(tmp_path, report)
    assert "](plots/roc.png)" in markdown
    assert "plots/prevalence.png" not in markdown
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page
    assert "<link" not in page
    assert set(re.findall(r"https?://[\w.]+", page)) == {"https://doi.org"}
    assert page.count("<table>") == page.count("</table>") >= 9
    assert f"<strong>{html.escape(report.findings['shortcuts'].verdict, quote=False)}</strong>" in page


@pytest.mark.parametrize("source", SOURCES)
def test_the_card_says_whose_films_they_are(report, tmp_path, source):
    markdown = write(tmp_path, report, source)[0]
    assert "Not a medical device" in markdown
    assert ("These are drawn films, not patients" in markdown) == (source == "phantom")
    assert ("Guangzhou" in markdown) == (source in ("kaggle", "huggingface"))


def test_what_was_not_measured_is_said(report, tmp_path):
    less = replace(report, sections=[replace(section, finding=None) for section in report.sections])
    assert write(tmp_path, less)[0].count("Not measured for this model.") == 3
    unexplained = Explanation("it ends in tokens", report.findings["explanation"].gallery)
    assert "No heat maps: it ends in tokens." in write(tmp_path, change(report, ["explanation"], unexplained))[0]


def test_the_sentences_fit_what_was_decided(report, tmp_path):
    chosen = write(tmp_path, report)[0]
    assert "a threshold fixed on validation" in chosen
    assert "then the temperature, the threshold and the abstention band" in chosen
    point = OperatingPoint("fixed", 0.99996, 0.99996, 0.99996)
    band = Abstention(0.02, 0.99996, 0.99996, reached=True)
    other = replace(report, locked=Locked(Temperature(1.0, "kept at 1: it is told by no film"), point, band))
    gallery = {kind: rows for kind, rows in report.findings["explanation"].gallery.items() if kind != "surest wrong"}
    other = change(other, ["explanation", "gallery"], gallery)
    given = write(tmp_path, other)[0]
    assert "Cut at 0.99996, a threshold set beforehand, it has" in given
    assert "The threshold was set beforehand (`evaluate.threshold`). From validation" in given
    assert "then the temperature and the abstention band" in given
    assert "no film is left to a person" in given
    assert "temperature of 1.000 (kept at 1: it is told by no film). On test" in given
    assert "It was surest of these errors" not in given


def test_test_films_of_one_class_are_said_to_be_so(report, tmp_path):
    nothing = Estimate(None, None, None, 0, 0)
    one = change(report, ["test", "curves", "roc"], None)
    for name in ("auroc", "specificity"):
        one = change(one, ["test", "metrics", name], nothing)
    markdown = write(tmp_path, one)[0]
    assert "the model sees one class alone, so that no AUROC is defined. Cut at" in markdown
    assert "Patients in the smaller class of test: only 0" in markdown


def test_the_card_says_at_the_top_what_it_is_about(report, tmp_path):
    write_card(report, Facts(INFO, 100, "x", "fast_er", "2026-03-01"), HISTORY, LEAKAGE, "kaggle", tmp_path)
    head = (tmp_path / "model_card.html").read_text().partition("In short")[0]
    assert "Experiment <strong>fast_er</strong>, evaluated on 2026-03-01 with Pulmo" in head
    assert "<code>fffffff</code>" in head


def test_what_is_wide_scrolls_in_itself(tmp_path):
    for name, inches in (("wide", 9), ("narrow", 4)):
        with drawing(tmp_path / f"{name}.png", inches, 1):
            pass
    text = "# T\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n![](wide.png)\n\n![](narrow.png)\n"
    page = to_html(text, tmp_path, ["wide.png", "narrow.png"])
    assert page.count('<div class="scroll"><table>') == page.count("</table></div>") == 1
    assert '<span class="scroll"><img class="wide" alt="" width="864"' in page
    assert '<p><img alt="" width="384"' in page


def test_the_title_of_a_page_is_text():
    page = to_html("# External test on </title><script>\n\nText\n", Path())
    assert "<title>External test on &lt;/title&gt;&lt;script&gt;</title>" in page


def test_a_file_name_cannot_write_the_page(report, tmp_path):
    path = ["explanation", "gallery", "surest wrong", 0, "path"]
    hostile = change(report, path, "`<script>alert(1)</script>`|x.png")
    page = write(tmp_path, hostile)[1]
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("|x.png") == 1


def blameless(report):
    better = {
        ("gap", "sensitivity", "high"): 0.1,
        ("gap", "specificity", "high"): 0.1,
        ("locked", "abstention", "reached"): True,
        ("test", "selective", "error", "low"): 0.01,
        ("shortcuts", "explains"): "little",
        ("test", "calibration", "after", "ece"): Chance(0.01, 0.02),
        ("explanation", "lungs", "shares", "all", "excess", "low"): 0.1,
        **{("explanation", "lungs", "shares", name, "excess", "high"): 0.2 for name in ("all", *CALLED)},
        ("test", "calibration", "after", "log_loss", "value"): 0.0,
        ("explanation", "randomisation", "passes"): True,
        ("test", "metrics", "sensitivity", "patients"): 100,
        ("test", "metrics", "specificity", "patients"): 100,
    }
    for row in range(len(report.test.subgroups)):
        better |= {("test", "subgroups", row, "gap", name, "high"): 0.1 for name in ("sensitivity", "specificity")}
    for row in range(len(report.findings["robustness"].changes)):
        better[("robustness", "changes", row, "severities", 1, "flipped", "value")] = 0.01
    for keys, value in better.items():
        report = change(report, keys, value)
    return report


@pytest.mark.parametrize(
    ("keys", "value", "doubt"),
    [
        (("test", "metrics", "auroc", "low"), 0.5, "better than chance is not shown"),
        (("gap", "specificity", "high"), -0.02, "Specificity changes by"),
        (("test", "selective", "error", "low"), 0.03, "more often than the 0.02 aimed at"),
        (("shortcuts", "explains"), "part", "AUROC"),
        (("test", "calibration", "after", "ece", "value"), 0.03, "0.030, while perfect calibration"),
        (("test", "subgroups", 0, "gap", "sensitivity", "high"), -0.01, "Sensitivity on test is lower"),
        (("robustness", "changes", 1, "severities", 1, "flipped", "value"), 0.2, "blur (20%)"),
        (("explanation", "lungs", "shares", "all", "excess", "low"), -0.01, "is not shown"),
        (("explanation", "lungs", "shares", "all", "excess", "high"), -0.01, "beyond chance (test films, all)"),
        (("explanation", "lungs", "shares", CALLED[0], "excess", "high"), -0.01, "(test films, called PNEUMONIA)"),
        (
            ("test", "calibration", "after", "log_loss", "value"),
            9.0,
            "makes probabilities worse on test: log loss 9.000",
        ),
        (("explanation", "randomisation", "passes"), False, "do not read them"),
        (("test", "metrics", "specificity", "patients"), 99, "only 99, so"),
    ],
)
def test_every_check_can_raise_its_doubt(report, tmp_path, keys, value, doubt):
    good = blameless(report)
    assert list_doubts(good, LEAKAGE) == []
    good = change(good, keys, value)
    (found,) = list_doubts(good, LEAKAGE)
    assert doubt in found
    assert f"- {found}" in write(tmp_path, good)[0]


def test_a_loss_from_validation_to_test_is_a_doubt(report):
    gap = report.gap["specificity"].value
    test, val = (part.metrics["specificity"].value for part in (report.test, report.val))
    assert gap == pytest.approx(test - val)
    assert any(f"Specificity changes by {gap:.3f}" in doubt for doubt in list_doubts(report, LEAKAGE))


def test_a_leak_is_a_doubt(report):
    for key, value, start in (
        ("patients_across_splits", ["p1", "p2"], "Patients in more than one split: 2, "),
        ("exact_duplicates_across_splits", ["a" * 64], "Pixel-identical films in more than one split: 1, "),
        ("films_of_unknown_patients", 1200, "Films that name no patient: 1,200"),
    ):
        (doubt,) = list_doubts(blameless(report), LEAKAGE | {key: value})
        assert doubt.startswith(start)
    assert not list_doubts(blameless(report), LEAKAGE | {"films_of_unknown_patients": 0})


@dataclass(frozen=True)
class Weight(Finding):
    """The finding of a probe that the card has never heard of."""

    grams: float

    def add_to(self, content):
        content["weight"] = {"grams": self.grams}

    def doubts(self):
        return ["It is heavy."]


def test_a_new_probe_brings_its_section_its_numbers_and_its_doubts(report, tmp_path):
    template = tmp_path / "weight.md.jinja"
    template.write_text("It weighs {{ part.grams | number }} g, at an AUROC of {{ test.metrics.auroc | estimate }}.\n")
    heavy = replace(report, sections=[*report.sections, Section("weight", "Weight", template, Weight(2.5))])
    markdown = write(tmp_path, heavy)[0]
    auroc = estimate_text(report.test.metrics["auroc"])
    assert f"## Weight\n\nIt weighs 2.500 g, at an AUROC of {auroc}.\n\n## Failures" in markdown
    assert "- It is heavy." in markdown
    assert heavy.to_json() == report.to_json() | {"weight": {"grams": 2.5}}
