import subprocess
from pathlib import Path

import pytest
import yaml
from code_reading import ROOT, params_read, reached_modules

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
ROOMS = ("src/pulmo/sources", "src/pulmo/training", "src/pulmo/templates")
# Plumbing whose edits cannot change what a stage writes: validation, names of files, exit codes, records of the run.
WITHOUT_EFFECT = {f"src/pulmo/{name}.py" for name in ("__init__", "params", "paths", "stage")}
WITHOUT_EFFECT |= {str(file.relative_to(ROOT)) for file in (ROOT / "src/pulmo/tracking").glob("*.py")}


def out_paths(stage: dict) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", [])]


def test_a_stage_for_every_script():
    assert {f"{name}.py" for name in STAGES} == {file.name for file in (ROOT / "stages").glob("*.py")}


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_code_it_reaches(name):
    script = ROOT / "stages" / f"{name}.py"
    reached = {str(file.relative_to(ROOT)) for file in reached_modules(script)} - WITHOUT_EFFECT
    folders = {dep for dep in STAGES[name]["deps"] if dep in ROOMS}
    files = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    for folder in folders:
        inside = {file for file in reached if file.startswith(f"{folder}/")}
        assert inside or folder.endswith("templates"), f"{folder} is declared but not reached"
        reached -= inside
    assert files == {f"stages/{name}.py"} | reached


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_params_it_reads(name):
    read = params_read(ROOT / "stages" / f"{name}.py") - {"", "preprocess.workers"}
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
        data = [dep for dep in stage["deps"] if not dep.endswith(".py") and dep not in ROOMS]
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
