import html
import re
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from toy_report import HISTORY, INFO, LEAKAGE, change, write

from pulmo.reporting.canvas import drawing
from pulmo.reporting.card import Facts, write_card, write_external_report
from pulmo.reporting.comparison import write_comparison
from pulmo.reporting.markdown import Markdown, to_block, to_code, to_html, to_table, to_text
from pulmo.reporting.report import ExternalReport, Known

HOSTILE = [
    "a`![x](/etc/logo.png)`.png",
    "![x](https://example.org/x.png)",
    "[x](javascript:alert(1))",
    "<https://example.org>",
    "a|b|c",
    "**bold** _em_ ~~no~~",
    "line\nbreak\r\n\n# heading",
    "\\`![x](y.png)\\`",
    "&lt;b&gt;",
    "``` \n<script>",
]


def words(markdown):
    """The words that a reader sees, of a document without code."""
    return re.sub(r"<[^>]*>", "", MarkdownIt("commonmark").enable("table").render(markdown)).strip()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("writing", [to_text, to_code])
def test_a_foreign_word_is_read_as_it_is(name, writing):
    shown = words(f"Film {writing(name)} and\n\n{to_table(['film', 'is'], [[writing(name), 'NORMAL']])}\n")
    plain = " ".join(name.split())
    assert html.unescape(shown).count(plain) == 2
    page = to_html(f"Film {writing(name)} and\n", Path())
    assert "<img" not in page
    assert "<a " not in page


def test_a_command_cannot_leave_its_block():
    block = to_block("a\n```\n# heading ![x](y.png)")
    page = to_html(f"Text\n\n{block}\n", Path())
    assert "<h1" not in page
    assert "<img" not in page
    assert "<pre><code>a ``` # heading ![x](y.png)" in page


def test_only_pictures_of_the_report_are_embedded(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    with drawing(tmp_path / "drawn.png", 1, 1):
        pass
    links = ("drawn.png", "secret.png", "missing.png", "/etc/x.png", "https://example.org/x.png")
    page = to_html("".join(f"![picture {link}]({link})\n\n" for link in links), tmp_path, ["drawn.png"])
    assert re.findall(r'src="([^"]{15})', page) == ["data:image/png;"]
    assert all(f"<p>picture {link}</p>" in page for link in links[1:])


def test_names_of_films_and_groups_write_no_markup_in_the_card(report, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    name = f"test/`![a]({secret})`|![b](https://example.org/b.png).png"
    hostile = change(report, ["explanation", "gallery", "surest wrong", 0, "path"], name)
    hostile = change(hostile, ["test", "subgroups", 0, "name"], f"series ![c]({secret})|")
    for gap in ("sensitivity", "specificity"):
        hostile = change(hostile, ["test", "subgroups", 0, "gap", gap, "high"], -0.01)
    page = write(tmp_path, hostile)[1]
    assert "<img" not in page
    assert f"<td>{name}</td>" in page
    assert f"<td>series ![c]({secret})|</td>" in page
    assert f"films for series ![c]({secret})| (" in page


def test_a_foreign_package_writes_no_markup_in_its_card(report, tmp_path):
    bad = "`![a](https://example.org/a.png)`|<b>"
    info = INFO | dict.fromkeys(("arch", "fit", "git_revision", "data_sha256", "weights_sha256"), bad)
    info["training"] = INFO["training"] | dict.fromkeys(("weights", "freeze", "loss", "device", "precision"), bad)
    write_card(report, Facts(info, 100, f"pulmo `{bad}`\n```\n{bad}"), HISTORY, LEAKAGE, "folder", tmp_path)
    page = (tmp_path / "model_card.html").read_text()
    assert "<img" not in page
    assert "<title>Model card: `![a](https://example.org/a.png)`|&lt;b&gt; at 32 pixels</title>" in page

    answers = report.test.selective
    external = ExternalReport(report.test, Known(None, bad), answers["coverage"], answers, {}, {})
    package = info | {"locked": report.locked.to_json(), "metrics": {"test": {}}}
    source = {"path": bad, "csv": bad}
    write_external_report(external, Facts(package, 100, bad), source, bad, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert page.count("!<a") == page.count('href="https://example') == 0


def test_names_of_runs_and_films_write_no_markup_in_a_comparison(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    name = f"`![a]({secret})`|.png"
    table = pd.DataFrame(
        {
            "path": [f"{i}{name}" for i in range(40)],
            "patient": [str(i) for i in range(40)],
            "label": [i % 2 for i in range(40)],
            "logit": [float(i % 7 - 3) for i in range(40)],
        }
    )
    pair = tuple(
        table.assign(
            logit=sign * table.logit, prob_pneumonia=0.5 + sign * table.logit / 8, called=sign * table.logit > 0
        )
        for sign in (1, -1)
    )
    pair = tuple(films.assign(called=films.called.astype(int)) for films in pair)
    write_comparison(tmp_path / "c.json", (f"one {name}", "a$_$b"), pair, (0.5, 0.5))
    page = (tmp_path / "c.html").read_text()
    assert page.count("<img") == 1
    assert f"<h1>a$_$b against one {name}</h1>" in page
    assert page.count(f"<td>0{name}</td>") <= 1
    assert f"<td>1{name}</td>" in page


def test_a_dollar_in_a_name_is_drawn_as_it_is(tmp_path):
    with drawing(tmp_path / "x.svg", 2, 2) as (ax,):
        ax.set_title("a$_$b")
        ax.set_xlabel("a$\\frac$")
    assert "a$_$b" in (tmp_path / "x.svg").read_text()


def test_what_a_template_calls_markdown_stays():
    assert to_text(Markdown("**x**")) == "**x**"
    assert to_code("a/b.png") == "`a/b.png`"
