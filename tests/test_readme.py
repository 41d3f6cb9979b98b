"""Badges and picture of the README say what holds."""

import re
import tomllib

from PIL import Image
from small_project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_badges_say_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    shown = re.findall(r"!\[(.*?)\]\(https://img\.shields\.io/badge/(\w+)-(\S+)-blue\)", README)
    assert shown == [
        (f"Licence: {project['license']}", "licence", project["license"]),
        (f"Python 3.{least} to 3.{int(beyond) - 1}", "python", f"3.{least}%20to%203.{int(beyond) - 1}"),
    ]


def test_the_picture_has_the_size_that_its_command_asks_for():
    width, height, file = re.search(
        r"--window-size=(\d+),(\d+) --screenshot=(\S+) reports/model_card.html", README
    ).groups()
    assert f"]({file})" in README
    with Image.open(ROOT / file) as picture:
        assert picture.size == (int(width), int(height))
    assert (ROOT / file).stat().st_size < 200_000
