import subprocess
from pathlib import Path

import pytest
import yaml_text
from code_reading import PACKAGE, ROOT, params_read, reached_modules

from pulmo.sources import SOURCES

PIPELINE = yaml_text.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
PARAMS = yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# Plumbing whose edits cannot change what a stage computes: validation, files, exit codes, records of the run.
WITHOUT_EFFECT = ("base", "tracking", "__init__.py")
NO_EFFECT = ("preprocess.workers", "preprocess.store_gb")  # params that change the speed alone
AHEAD = ("preprocess.size", "preprocess.fit")  # which download decodes for, but none of its outputs depends on
# Of these a stage declares the files that it reaches, so that the edit of another file in them does not run it again.
BY_FILE = {
    "download": ["dataset"],
    "split": ["dataset"],
    "preprocess": ["dataset"],
    "train": ["dataset", "films", "metrics"],
    "evaluate": ["dataset"],
}


def out_paths(stage: dict) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", [])]


def test_a_stage_for_every_script():
    assert {f"{name}.py" for name in STAGES} == {file.name for file in (ROOT / "stages").glob("*.py")}


def code_deps(stage: str) -> list[str]:
    """The code that a stage reaches, as dvc.yaml declares it: packages, or files of the packages in BY_FILE."""
    deps = set()
    for file in reached_modules(ROOT / "stages" / f"{stage}.py"):
        package, *inner = file.relative_to(PACKAGE).parts
        if package in WITHOUT_EFFECT or (inner == ["__init__.py"] and package != "sources"):
            continue
        if package == "sources":  # the code of one source concerns those alone who use it
            deps.add("sources/" + (inner[0] if inner[0] in ("__init__.py", "common") else "${data.source}"))
        else:
            deps.add(f"{package}/{'/'.join(inner)}" if package in BY_FILE.get(stage, []) else package)
    return [f"stages/{stage}.py", *(f"src/pulmo/{dep}" for dep in sorted(deps, key=lambda dep: dep.replace("$", "~")))]


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_code_it_reaches(name):
    declared = [dep for dep in STAGES[name]["deps"] if dep.startswith(("src/", "stages/"))]
    lines = "".join(f"      - {dep}\n" for dep in code_deps(name))
    assert declared == code_deps(name), f"paste this into dvc.yaml, below deps of {name}:\n{lines}"


def test_every_source_has_a_folder_of_its_name():
    assert set(SOURCES) == {entry.name for entry in (PACKAGE / "sources").iterdir() if entry.is_dir()} - {
        "common",
        "__pycache__",
    }


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_params_it_reads(name):
    read = params_read(ROOT / "stages" / f"{name}.py") - {"", *NO_EFFECT, *(AHEAD if name == "download" else ())}
    declared = set(STAGES[name].get("params", []))
    for key in read:
        assert key in declared or key.split(".")[0] in declared, f"{key} is read but not declared"
    for key in declared - read:
        assert {f"{key}.{inner}" for inner in PARAMS[key]} <= read, f"{key} is declared but not all of it is read"


@pytest.mark.parametrize("name", STAGES)
def test_stage_runs_the_code_of_its_own_checkout(name):
    assert STAGES[name]["cmd"] == f"PYTHONPATH=src python stages/{name}.py"


def test_data_that_a_stage_reads_is_written_by_an_earlier_one():
    written: set[str] = set()
    for name, stage in STAGES.items():
        data = [dep for dep in stage["deps"] if not dep.startswith(("src/", "stages/"))]
        assert set(data) <= written, name
        written |= set(out_paths(stage))


def test_git_ignores_every_out_but_the_metrics():
    for stage in STAGES.values():
        for out in out_paths(stage):
            ignored = subprocess.run(["git", "check-ignore", "-q", out], cwd=ROOT).returncode == 0
            assert ignored == (out not in PIPELINE["metrics"]), out


def test_metrics_and_plots_are_outs():
    outs = {out for stage in STAGES.values() for out in out_paths(stage)}
    assert set(PIPELINE["metrics"]) <= outs
    for plot in PIPELINE["plots"]:
        sources = [plot] if isinstance(plot, str) else [name for settings in plot.values() for name in settings["y"]]
        for source in sources:
            assert any(Path(source) == Path(out) or Path(out) in Path(source).parents for out in outs), source
