"""The scripts beside the library, which no other test runs: what they import exists, so that a rename is noticed."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("bench/*.py"), *ROOT.glob("docs/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_that_a_script_imports_from_the_library_exists(script):
    imports = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    wanted = [(node.module, name.name) for node in imports for name in node.names if node.module.startswith("pulmo")]
    for module, name in wanted:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
