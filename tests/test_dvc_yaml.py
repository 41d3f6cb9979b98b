import shutil
import subprocess
from pathlib import Path

import pytest
import yaml_text
from code_reading import ROOT, params_read

from pulmo.base.code import PACKAGE
from pulmo.experiments.code_deps import find_code_deps, is_code
from pulmo.sources import SOURCES

PIPELINE = yaml_text.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
PARAMS = yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
NO_EFFECT = ("preprocess.engine", "preprocess.workers", "preprocess.store_gb")  # params that change the speed alone
AHEAD = ("preprocess.size", "preprocess.fit")  # which download decodes for, but none of its outputs depends on


def out_paths(stage: dict) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage.get("outs", [])]


def test_a_stage_for_every_script():
    assert {f"{name}.py" for name in STAGES} == {file.name for file in (ROOT / "stages").glob("*.py")}


@pytest.mark.parametrize("name", STAGES)
def test_stage_declares_the_code_it_reaches(name):
    declared = [dep for dep in STAGES[name]["deps"] if is_code(dep)]
    assert declared == find_code_deps(ROOT, name), "`pulmo deps --write` puts them into dvc.yaml"


def test_every_source_has_a_folder_of_its_name():
    assert set(SOURCES) == {entry.name for entry in (PACKAGE / "sources").iterdir() if entry.is_dir()} - {
        "common",
        "__pycache__",
    }
    for name, fetch in SOURCES.items():  # so that no stage need depend on the table itself
        assert fetch.__module__ == f"pulmo.sources.{name}"


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
        data = [dep for dep in stage["deps"] if not is_code(dep)]
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


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_clean_removes_what_the_pipeline_wrote_and_nothing_of_the_user(tmp_path):
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    written = [path for stage in STAGES.values() for path in out_paths(stage)]
    own = ["data/films.zip", "data/hospital/film.png", "models/own.pth", "data.csv"]
    for name in (*written, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
    assert [name for name in written if (tmp_path / name).exists()] == ["reports/metrics.json"], "which git keeps"
    assert all((tmp_path / name).exists() for name in own)
