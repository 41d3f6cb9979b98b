"""Files that other programs read keep to the published schemas of those programs."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_project import ROOT


def check(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "deploy/mlflow.compose.yaml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_a_file_keeps_to_its_schema(schema, file):
    done = check(schema, ROOT / file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_key_that_compose_does_not_know_is_found(tmp_path):
    text = (ROOT / "deploy/mlflow.compose.yaml").read_text(encoding="utf-8")
    (tmp_path / "compose.yaml").write_text(text.replace("healthcheck:", "healthchecks:"))
    assert "healthchecks" in check("vendor.compose-spec", tmp_path / "compose.yaml").stdout
