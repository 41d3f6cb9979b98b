"""Checkouts below paths with letters outside ASCII, which DVC alone cannot run experiments in, and with # in them."""

from pathlib import Path

import pytest
from small_project import PULMO, run
from toy_project import PARAMS, make_toy

from pulmo.base.errors import UserError
from pulmo.experiments import doctor
from pulmo.experiments.aside import find_obstacle, name_cache, needs_name, prepare_aside
from pulmo.experiments.dvc import Dvc
from pulmo.experiments.listing import read_experiments
from pulmo.experiments.project import Project
from pulmo.experiments.recipes import RunError, run_recipe
from pulmo.experiments.sweep import run_sweep


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


class Cache(Dvc):
    """DVC whose cache lies where it is told."""

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root)
        self.cache = cache

    def cache_folder(self) -> Path:
        return self.cache

    def run(self, *arguments: str) -> str:
        self.cache = self.root / ".dvc/cache" if "--unset" in arguments else Path(arguments[-1])
        return ""


def test_a_cache_gets_a_plain_name_which_follows_it_and_goes_when_it_is_not_needed(tmp_path):
    root = tmp_path / "Röntgen"
    dvc = Cache(root, root / ".dvc/cache")
    assert needs_name(dvc)
    link = name_cache(dvc)
    assert link is not None
    assert str(link).isascii()
    assert link == name_cache(dvc) == dvc.cache
    (link / "object").write_text("x")
    assert (root / ".dvc/cache/object").exists()
    assert not needs_name(dvc)

    moved = Cache(root.rename(tmp_path / "Übersicht"), link)
    assert needs_name(moved)
    assert (name_cache(moved) / "object").exists()
    plain = Cache(moved.root.rename(tmp_path / "plain"), moved.cache)
    assert needs_name(plain)
    assert name_cache(plain) is None
    assert plain.cache == tmp_path / "plain/.dvc/cache"
    assert not needs_name(plain)


def test_a_cache_that_was_begun_in_the_place_of_its_name_is_not_lost(tmp_path):
    dvc = Cache(tmp_path / "Röntgen", tmp_path / "Röntgen/.dvc/cache")
    link = name_cache(dvc)
    link.unlink()
    link.mkdir()
    assert needs_name(dvc)
    with pytest.raises(UserError, match=rf"(?s)DVC began another cache there\n\nhint: `cp -rn {link}/\. .*pulmo setup"):
        name_cache(dvc)


def test_a_cache_that_was_removed_is_begun_anew_behind_its_name(tmp_path):
    dvc = Cache(tmp_path / "Röntgen", tmp_path / "Röntgen/.dvc/cache")
    link = name_cache(dvc)
    (tmp_path / "Röntgen/.dvc/cache").rmdir()
    assert needs_name(dvc)
    assert name_cache(dvc) == link
    assert link.is_dir()
    assert not needs_name(dvc)


@pytest.mark.parametrize("name", ["C#", "a%20b", "new?"])
def test_paths_that_dvc_takes_apart_are_refused_with_the_cure(tmp_path, name):
    for folder in (".dvc", "dvc.yaml", "params.yaml", "stages"):
        (tmp_path / name / folder).mkdir(parents=True)
    project = Project(tmp_path / name)
    with pytest.raises(UserError, match=r"(?s)no queue and no `--temp` below a path with (#|%20|\?) in it.*move"):
        prepare_aside(project)
    assert doctor.check_project(project).state == "warning"
    assert not find_obstacle(tmp_path / "Röntgen, 100% neu")


@pytest.mark.slow
def test_every_kind_of_experiment_runs_below_letters_outside_ascii(tmp_path):
    folder = make_toy(tmp_path / "Röntgen 写真", params=f"{PARAMS}  weights: none\n")
    project = Project(folder)
    assert doctor.check_cache(project).cure == "pulmo setup"
    run(folder, "dvc", "exp", "run", "--queue", "-n", "queued", "-S", "train.lr=0.2")
    said = run(folder, *PULMO, "queue", "run")
    assert "queued: success" in said
    assert doctor.check_cache(project).state == "ok"
    run(folder, "dvc", "exp", "run", "--temp", "-n", "aside", "-S", "train.lr=0.3")  # as a user types it
    (folder / "small.yaml").write_text("name: s\ntrials: 1\nseed: 1\nspace:\n  train.lr: {choice: [0.4, 0.41]}\n")
    run_sweep(project, folder / "small.yaml")
    (folder / "recipes").mkdir()
    (folder / "recipes/protocols.yaml").write_text("honest: {}\n")
    (folder / "recipes/r.yaml").write_text("protocol: honest\npublished: {}\nparams: {train: {lr: 0.5}}\n")
    with pytest.raises(UserError) as end:
        run_recipe(project, "r", honest=False)
    assert not isinstance(end.value, RunError), "it ran; the toy lacks what the leaderboard reads"
    listed = {item.name: item.state for item in read_experiments(project)}
    assert listed == dict.fromkeys(("queued", "aside", "s-0", "r"), "Success")
