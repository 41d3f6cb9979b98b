import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from small_project import ROOT, copy_project
from typer.testing import CliRunner

from pulmo import cli, recipes
from pulmo.experiments import to_arguments
from pulmo.files import read_json, write_csv
from pulmo.params import load_params


def call(*arguments: object) -> str:
    """What `pulmo` prints; the error it raises comes through."""
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def inside(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = copy_project(project, tmp_path / "copy")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


@pytest.mark.slow
def test_summary_tells_metrics_with_intervals_and_what_is_next(inside):
    text = call("summary")
    auroc = read_json(inside / "reports/evaluation.json")["test"]["metrics"]["auroc"]
    assert f"{auroc['value']:.3f}  (95% interval {auroc['low']:.3f} to {auroc['high']:.3f})" in text
    for word in ("model_card.html", "pulmo experiments", "mlflow ui", "dvc plots show"):
        assert word in text


@pytest.mark.slow
def test_predict_answers_like_the_evaluation(inside):
    film = pd.read_csv("reports/predictions.csv").iloc[0]
    text = call("predict", inside / "data/raw" / film.path)
    assert f"prob_pneumonia {film.prob_pneumonia:.3f}" in text
    assert ("PNEUMONIA" if film.called else "NORMAL") in text


@pytest.mark.slow
def test_external_films_get_the_locked_threshold(inside):
    known = pd.read_csv("reports/predictions.csv").query("split == 'test'")
    hospital = inside / "hospital"
    for film in known.itertuples():
        target = hospital / ("PNEUMONIA" if film.label else "NORMAL") / Path(film.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inside / "data/raw" / film.path, target)
    text = call("evaluate", "--films", hospital, "--out", inside / "out")
    report = read_json(inside / "out/evaluation.json")
    original = read_json(inside / "reports/evaluation.json")
    assert report["external"]["confusion"] == original["test"]["confusion"]
    assert report["external"]["metrics"]["auroc"]["value"] == original["test"]["metrics"]["auroc"]["value"]
    assert report["locked"] == original["locked"]
    assert "sensitivity" in text
    assert (inside / "out/plots/roc.png").exists()
    page = (inside / "out/report.html").read_text()
    auroc = report["external"]["metrics"]["auroc"]
    assert f"{auroc['value']:.3f} ({auroc['low']:.3f}–{auroc['high']:.3f})" in page
    warning = f"{len(known)} of {len(known)} films are the model's own ({len(known)} test)"
    assert warning in text
    assert warning in (inside / "out/report.md").read_text()
    assert report["external"]["known"]["films"] == {"train": 0, "val": 0, "test": len(known)}
    assert page.count("data:image/png;base64") >= 8
    assert 'src="http' not in page


@pytest.mark.slow
def test_external_films_of_one_class_get_a_report_too(inside):
    known = pd.read_csv("reports/predictions.csv").query("split == 'test' and label == 0").head(4)
    (inside / "well/NORMAL").mkdir(parents=True)
    for path in known.path:
        shutil.copy(inside / "data/raw" / path, inside / "well/NORMAL")
    (inside / "models/package/films.csv").unlink()
    text = call("evaluate", "--films", inside / "well", "--out", inside / "out")
    assert "does not list the films" in text
    assert "auroc              –" in text
    assert "no AUROC is defined" in (inside / "out/report.md").read_text()
    assert not (inside / "out/raw").exists()


@pytest.mark.slow
def test_an_external_film_that_cannot_be_read_is_named(inside):
    known = pd.read_csv("reports/predictions.csv").query("split == 'test'")
    for film in known.itertuples():
        target = inside / "hospital" / ("PNEUMONIA" if film.label else "NORMAL") / Path(film.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inside / "data/raw" / film.path, target)
    target.write_bytes(b"no film")
    with pytest.raises(ValueError, match=f"hospital: .*{target.name}: not an image") as caught:
        call("evaluate", "--films", inside / "hospital", "--out", inside / "out")
    assert "\n" not in str(caught.value)
    assert not (inside / "out").exists()


@pytest.mark.slow
def test_external_films_that_are_missing_leave_no_report(inside):
    (inside / "broken.png").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"broken\.png: not an image"):
        call("predict", inside / "broken.png")
    with pytest.raises(ValueError, match="nowhere not found"):
        call("evaluate", "--films", inside / "nowhere", "--out", inside / "out")
    assert not (inside / "out").exists()


@pytest.mark.slow
def test_compare_reads_the_workspace_and_a_run(inside, monkeypatch):
    name = read_json(inside / "reports/mlflow_run.json")["name"]
    films = pd.read_csv("reports/predictions.csv")
    films["logit"] = -films.logit
    films["called"] = 1 - films.called
    films.loc[films.split == "test", "patient"] = ["NA", "null", *films.patient[films.split == "test"][2:]]
    write_csv(inside / "reports/predictions.csv", films)
    text = call("compare", "workspace", name)
    report = read_json(inside / "reports/comparison.json")
    test = films[films.split == "test"]
    assert report["films"] == len(test)
    assert len(report["disagreements"]) == len(test)
    auroc = report["metrics"]["auroc"]
    assert auroc["a"] + auroc["b"] == pytest.approx(1)
    assert "DeLong" in text
    assert "McNemar" in text


@pytest.mark.slow
def test_compare_refuses_what_cannot_be_compared(inside):
    with pytest.raises(ValueError, match=r"'nothing' is found neither by DVC .* nor in an MLflow run"):
        call("compare", "workspace", "nothing")
    name = read_json(inside / "reports/mlflow_run.json")["name"]
    films = pd.read_csv("reports/predictions.csv")
    write_csv(inside / "reports/predictions.csv", films[films.path != films[films.split == "test"].path.iloc[0]])
    with pytest.raises(ValueError, match="the two test sets differ"):
        call("compare", "workspace", name)


def test_without_a_run_there_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["summary"], ["predict", "x.png"], ["recipe", "run", "no-such-recipe"]):
        monkeypatch.setattr("sys.argv", ["pulmo", *command])
        with pytest.raises(SystemExit, match=r"^error: ") as end:
            cli.main()
        assert "\n" not in str(end.value.code)


@pytest.mark.parametrize("name", recipes.list_recipes(ROOT / "recipes"))
@pytest.mark.parametrize("honest", [False, True])
def test_every_recipe_gives_valid_params(name, honest, tmp_path):
    import yaml

    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    recipe = recipes.read_recipe(ROOT / "recipes", name, honest)
    assert (recipe.protocol == "honest") == (honest or name == "ours")
    assert set(recipe.published) <= set(recipes.SHOWN)
    for setting in to_arguments(recipe.params)[1::2]:
        key, _, value = setting.partition("=")
        section, *inner, last = key.split(".")
        place = params[section]
        for step in inner:
            place = place[step]
        assert last in place, f"{key} is no key of params.yaml"
        place[last] = yaml.safe_load(value)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    load_params(tmp_path / "params.yaml")


def test_a_recipe_sets_every_key_of_training():
    import yaml

    keys = set(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"])
    for name in recipes.list_recipes(ROOT / "recipes"):
        recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert keys - set(recipe["params"]["train"]) == {"precision", "device", "seed"}, name


def test_a_recipe_that_is_honest_itself_runs_once(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/recipes.md").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    ran: list[tuple[str, bool]] = []
    monkeypatch.setattr(recipes, "run_recipe", lambda root, name, honest, settings: ran.append((name, honest)))
    call("recipe", "run", "ours", "resnet50-head")
    assert ran == [("ours", True), ("resnet50-head", False), ("resnet50-head", True)]


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no recipe 'resnet'.*resnet18-layer4"):
        recipes.read_recipe(ROOT / "recipes", "resnet", honest=False)


def entry(
    recipe: str, protocol: str, published: dict[str, float], value: float, settings: tuple[str, ...] = ()
) -> dict:
    found = {"value": value, "low": value - 0.1, "high": min(1, value + 0.1)}
    test = dict.fromkeys(recipes.SHOWN, found)
    return {
        "recipe": recipe,
        "protocol": protocol,
        "published": published,
        "test": test,
        "val_auroc": found,
        "seconds": 12,
        "times_test_opened": 2,
        "settings": ["data.source=kaggle", *settings],
    }


def test_leaderboard_sets_published_numbers_above_ours():
    entries = {
        "b-honest": entry("b", "honest", {"accuracy": 0.81}, 0.7, ("train.weights=imagenet",)),
        "b": entry("b", "random", {"accuracy": 0.81}, 0.8),
        "a": entry("a", "random", {}, 0.9),
    }
    *lines, blank, note = recipes.format_leaderboard(entries).splitlines()[2:]
    assert (blank, note) == ("", "b-honest was run with `train.weights=imagenet`.")
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| a", "random"],
        ["| b", "published"],
        ["| b", "random"],
        ["| b", "honest"],
    ]
    assert "0.810" in lines[1]
    assert "0.800 (0.700–0.900)" in lines[2]
    assert lines[2].endswith("| 12 | 2 |")


def test_the_readme_shows_the_leaderboard_that_was_run():
    board = recipes.format_leaderboard(read_json(ROOT / "reports/recipes.json"))
    assert (ROOT / "reports/recipes.md").read_text(encoding="utf-8") == board
    assert board in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def recorded(tmp_path, monkeypatch) -> tuple[list[list[str]], list[int]]:
    """The commands that recipes run in `tmp_path`, none of which happens, and their exit status; results are made up,
    an AUROC of .70 in the first experiment, .71 in the next ..."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    commands: list[list[str]] = []
    status = [0]

    def run(command: list[str], cwd: Path, capture_output: bool = False) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=status[0])

    def read(root: Path, path: str, revision: str) -> str:
        found = {"value": 0.69 + sum("run" in command for command in commands) / 100, "low": 0.5, "high": 1.0}
        metrics = {"metrics": dict.fromkeys(recipes.SHOWN, found)}
        report = {split: metrics | {"calibration": {"before": {"log_loss": found}}} for split in ("val", "test")}
        model = {"training": {"weights": "none"}, "data_sha256": "d", "git_revision": "g"}
        return json.dumps({"reports/evaluation.json": report, "models/trained/model.json": model}[path])

    monkeypatch.setattr(recipes.subprocess, "run", run)
    monkeypatch.setattr(recipes, "read_output", read)
    return commands, status


def test_a_run_recipe_is_recorded_with_its_openings(tmp_path, recorded):
    commands, status = recorded
    for _ in range(2):
        recipes.run_recipe(tmp_path, "resnet18-layer4", honest=True, settings=["train.head=2", "train.weights=none"])
    assert commands[0] == ["dvc", "exp", "remove", "resnet18-layer4-honest"]
    assert commands[1][:6] == ["dvc", "exp", "run", "--temp", "-n", "resnet18-layer4-honest"]
    assert commands[1][-1] == "train.weights=none"
    kept = read_json(tmp_path / "reports/recipes.json")["resnet18-layer4-honest"]
    assert kept["times_test_opened"] == 2
    assert kept["settings"] == ["train.weights=none"], "what the recipe says itself is no change"
    assert kept["published"] == {"accuracy": 0.95, "loss": 0.14}
    assert kept["test"]["loss"] == {"value": 0.71, "low": 0.5, "high": 1.0}, "the second run, with its interval"
    assert "resnet18-layer4 | honest" in (tmp_path / "reports/recipes.md").read_text()
    status[0] = 1
    with pytest.raises(ValueError, match="experiment resnet18-layer4 failed"):
        recipes.run_recipe(tmp_path, "resnet18-layer4", honest=False)


def test_a_protocol_of_several_draws_is_run_on_each_and_told_by_mean_and_range(tmp_path, recorded):
    commands, _ = recorded
    kept = recipes.run_recipe(tmp_path, "resnet18-head-3epochs", honest=False)
    ran = [command for command in commands if "run" in command]
    assert [command[5] for command in ran] == [
        "resnet18-head-3epochs",
        *(f"resnet18-head-3epochs-draw-{draw}" for draw in range(2, 11)),
    ]
    assert [command[-1] for command in ran] == [f"split.seed={seed}" for seed in range(42, 52)]
    assert kept["test"]["auroc"] == pytest.approx({"value": 0.745, "low": 0.7, "high": 0.79})
    assert (kept["draws"], kept["times_test_opened"]) == (10, 10)
    board = (tmp_path / "reports/recipes.md").read_text()
    assert "balanced-300-100, 10 draws | 0.745 (0.700–0.790)" in board
    assert "Of several draws: mean (lowest–highest)" in board
