"""`pulmo deps`: the code that the stages reach, compared with dvc.yaml and written into it."""

from pathlib import Path

import pytest
from small_project import ROOT
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.experiments.code_deps import find_code_deps, write_code_deps

PIPELINE = """# a comment
stages:
  split:
    cmd: python stages/split.py
    deps:
      - src/pulmo/gone
      - data/films.csv
    params: [split]  # another
"""
CODE = {
    "stages/split.py": "from pulmo.dataset.splits import draw",
    "src/pulmo/dataset/splits.py": "import pulmo.films.rows.labels\nfrom pulmo.base.files import whole_file",
    "src/pulmo/dataset/preprocessing.py": "",
    "src/pulmo/films/names.py": "",
    "src/pulmo/films/rows/labels.py": "import pulmo.sources",
    "src/pulmo/sources/__init__.py": "from pulmo.sources.phantom import fetch",
    "src/pulmo/sources/phantom/__init__.py": "",
    "src/pulmo/base/files.py": "",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in CODE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_packages_files_and_the_source_in_use_are_found(project):
    assert find_code_deps(project, "split") == [
        "stages/split.py",
        "src/pulmo/dataset/splits.py",
        "src/pulmo/films/rows",
        "src/pulmo/sources/${data.source}",
    ]


def test_what_is_missing_is_told_then_written_and_nothing_else_changes(project):
    told = CliRunner().invoke(cli.app, ["deps"])
    assert told.exit_code == 1
    assert "  + src/pulmo/films/rows\n" in told.output
    assert "  - src/pulmo/gone\n" in told.output
    assert (project / "dvc.yaml").read_text() == PIPELINE
    assert CliRunner().invoke(cli.app, ["deps", "--write"]).exit_code == 0
    lines = "".join(f"      - {dep}\n" for dep in find_code_deps(project, "split"))
    assert (project / "dvc.yaml").read_text() == PIPELINE.replace("      - src/pulmo/gone\n", lines)
    again = CliRunner().invoke(cli.app, ["deps"])
    assert (again.exit_code, again.output) == (0, "dvc.yaml declares the code that each stage reaches\n")


def test_deps_in_one_line_are_left_alone(project):
    (project / "dvc.yaml").write_text("stages:\n  split:\n    deps: [data/films.csv]\n")
    with pytest.raises(UserError, match="the deps of split are not listed one a line"):
        write_code_deps(project)


def test_writing_them_into_the_pipeline_changes_nothing(tmp_path):
    for name in ("dvc.yaml", "stages", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    before = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    (tmp_path / "dvc.yaml").unlink()
    (tmp_path / "dvc.yaml").write_text(before, encoding="utf-8")
    write_code_deps(tmp_path)
    assert (tmp_path / "dvc.yaml").read_text(encoding="utf-8") == before
