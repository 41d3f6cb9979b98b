import re
import shutil
import subprocess
from pathlib import Path

import pytest
from small_project import run
from toy_project import PIPELINE, make_toy

CHART = """
plots:
  - validation AUROC by epoch:
      template: linear
      x: epoch
      y:
        reports/history.csv: val_auroc
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of `dvc plots show` in a checkout that `pulmo setup` has prepared."""
    folder = make_toy(tmp_path_factory.mktemp("plots") / "toy", pipeline=PIPELINE + CHART)
    run(folder, "pulmo", "setup")
    run(folder, "dvc", "plots", "show")
    return folder / "dvc_plots/index.html"


def test_the_page_of_plots_asks_no_network(page):
    text = page.read_text(encoding="utf-8")
    assert "vegaEmbed" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(https?:)?//", text)
    assert "{plot_divs}" not in text


def test_setup_leaves_nothing_that_git_would_commit(page):
    lines = run(page.parents[1], "git", "status", "--porcelain", "--", ".dvc").splitlines()
    assert [line for line in lines if not line.endswith((".dvc/.gitignore", ".dvc/plots.html"))] == []


@pytest.mark.slow
@pytest.mark.skipif(
    not CHROMIUM, reason="Chromium is not installed (apt-get install chromium); .ci/run installs it where it may"
)
def test_charts_are_drawn_without_a_network(page, tmp_path):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}", page.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert re.search(r"<(canvas|svg)[^>]+class=\"marks\"", drawn), drawn[-2000:]
