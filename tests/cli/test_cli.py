import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml_text
from hubs import lead_hugging_face_to
from small_project import ROOT, copy_project, run
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.files import read_json, write_csv
from pulmo.base.params_file import load_params
from pulmo.experiments import leaderboard, recipes
from pulmo.experiments.dvc import Dvc, to_arguments
from pulmo.experiments.leaderboard import Entry
from pulmo.experiments.project import Project
from pulmo.experiments.sweep import run_sweep
from pulmo.metrics.estimates import ValueInInterval

SWEEP = ROOT / "sweeps/small.yaml"


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
    assert f"auroc        {auroc['value']:.3f} ({auroc['low']:.3f}–{auroc['high']:.3f})" in text
    for word in ("model_card.html", "pulmo experiments", "pulmo ui", "dvc plots show"):
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
    change = report["external"]["change"]["sensitivity"]
    assert change["value"] == 0
    assert change["low"] < 0 < change["high"]
    assert (
        f"| {change['value']:.3f} ({change['low']:.3f} to {change['high']:.3f}) |"
        in (inside / "out/report.md").read_text()
    )
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
    assert re.search(r"^auroc +–$", text, re.MULTILINE)
    assert "no AUROC is defined" in (inside / "out/report.md").read_text()
    assert not (inside / "out/raw").exists()


@pytest.mark.slow
def test_external_films_are_read_by_a_published_csv(inside):
    known = pd.read_csv("reports/predictions.csv").query("split == 'test'").groupby("label").head(9)
    (inside / "films").mkdir()
    for path in known.path:
        shutil.copy(inside / "data/raw" / path, inside / "films")
    lines = [
        f"{Path(film.path).name};{('No Finding', 'A=B')[film.label]};{'FM'[film.label]}" for film in known.itertuples()
    ]
    (inside / "Data.csv").write_text("\n".join(["Image Index;Finding;Sex", *lines, "gone.png;No Finding;F"]))
    asked = ["evaluate", "--films", inside / "films", "--labels", inside / "Data.csv", "--out", inside / "out"]
    asked += ["--column", "path=Image Index", "--column", "label=Finding", "--label-value", "No Finding=NORMAL"]
    with pytest.raises(UserError, match="label 'A=B' is neither NORMAL nor PNEUMONIA"):
        call(*asked)
    text = call(*asked, "--label-value", "A=B=PNEUMONIA", "--partial")
    assert "18 films of" in text
    assert "1 rows without film" in text
    assert set(pd.read_csv(inside / "out/predictions.csv")["csv.sex"]) == {"F", "M"}
    command = f"--labels {inside}/Data.csv --column 'path=Image Index' --column label=Finding"
    command += " --label-value 'No Finding=NORMAL' --label-value A=B=PNEUMONIA --partial"
    assert command in (inside / "out/report.md").read_text()
    with pytest.raises(UserError, match="--column 'image=x' names none of path, label, patient, split"):
        call(*asked, "--column", "image=x")


@pytest.mark.slow
def test_an_external_film_that_cannot_be_read_is_named(inside):
    known = pd.read_csv("reports/predictions.csv").query("split == 'test'")
    for film in known.itertuples():
        target = inside / "hospital" / ("PNEUMONIA" if film.label else "NORMAL") / Path(film.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inside / "data/raw" / film.path, target)
    target.write_bytes(b"no film")
    with pytest.raises(UserError, match=f"hospital: .*{target.name}: not an image") as caught:
        call("evaluate", "--films", inside / "hospital", "--out", inside / "out")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not (inside / "out").exists()


@pytest.mark.slow
def test_external_films_that_are_missing_leave_no_report(inside):
    (inside / "broken.png").write_bytes(b"no film")
    done = CliRunner().invoke(cli.app, ["predict", str(inside / "broken.png")])
    assert done.exit_code == 1
    assert "broken.png: not an image" in done.stderr
    with pytest.raises(UserError, match="data holds more than an earlier report"):
        call("evaluate", "--films", inside / "data", "--out", inside / "data")
    assert (inside / "data/films.csv").exists()
    with pytest.raises(UserError, match=r"--films .*nowhere not found\n\nhint: "):
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
    with pytest.raises(UserError, match=r"(?s)'nothing' is found neither by DVC .* nor in an MLflow run"):
        call("compare", "workspace", "nothing")
    name = read_json(inside / "reports/mlflow_run.json")["name"]
    films = pd.read_csv("reports/predictions.csv")
    write_csv(inside / "reports/predictions.csv", films[films.path != films[films.split == "test"].path.iloc[0]])
    with pytest.raises(UserError, match="the two test sets differ"):
        call("compare", "workspace", name)


def test_without_a_run_there_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["summary"], ["predict", "x.png"], ["recipe", "run", "no-such-recipe"]):
        monkeypatch.setattr("sys.argv", ["pulmo", *command])
        with pytest.raises(SystemExit, match=r"^error: ") as end:
            cli.main()
        message, *hint = str(end.value.code).split("\n\nhint: ")
        assert "\n" not in message
        assert len(hint) < 2


@pytest.mark.parametrize("command", ["ui", "history", "promote faster", "recipe list", "experiments"])
def test_outside_a_project_a_command_says_so_and_leaves_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(UserError, match=f"{tmp_path} lies in no Pulmo project"):
        call(*command.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"test": null}', '{"test": {"metrics": {}}, "locked": {}}'])
def test_a_report_that_was_edited_is_one_clear_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/evaluation.json").write_text(content)
    with pytest.raises(
        UserError, match=r"(?s)evaluation\.json is damaged or of another version.*hint: run `dvc repro`"
    ):
        call("summary")


def test_a_folder_in_place_of_a_file_is_no_matter_of_permissions(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pulmo", "sweep", "."])
    with pytest.raises(SystemExit, match=r"Is a directory\n\nhint: correct the path"):
        cli.main()


@pytest.mark.parametrize("given", ["predict ", "evaluate --films ", "serve --token="])
def test_an_empty_argument_is_one_clear_line(given, monkeypatch):
    """Taken as it is, the first would ask about every film below this folder, the last serve without a token."""
    monkeypatch.setattr("sys.argv", ["pulmo", *given.split(" ")])
    with pytest.raises(
        SystemExit, match=r"^error: (an argument|--token) is empty\n\nhint: a shell variable that is not"
    ):
        cli.main()


def test_a_bug_in_a_command_keeps_its_traceback(monkeypatch):
    def break_down() -> None:
        np.zeros(3) + np.zeros(4)

    monkeypatch.setattr("pulmo.base.paths.project_root", break_down)
    monkeypatch.setattr("sys.argv", ["pulmo", "summary"])
    with pytest.raises(ValueError, match="could not be broadcast"):
        cli.main()


@pytest.mark.parametrize("name", recipes.list_recipes(ROOT / "recipes"))
@pytest.mark.parametrize("honest", [False, True])
def test_every_recipe_gives_valid_params(name, honest, tmp_path):
    params = yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    recipe = recipes.read_recipe(ROOT / "recipes", name, honest)
    assert (recipe.protocol == "honest") == (honest or name == "ours")
    assert set(recipe.published) <= set(leaderboard.SHOWN)
    for setting in to_arguments(recipe.params)[1::2]:
        key, _, value = setting.partition("=")
        section, *inner, last = key.split(".")
        place = params[section]
        for step in inner:
            place = place[step]
        assert last in place, f"{key} is no key of params.yaml"
        place[last] = yaml_text.load(value)
    (tmp_path / "params.yaml").write_text(yaml_text.dump(params))
    load_params(tmp_path / "params.yaml")


def test_a_recipe_sets_every_key_of_training():
    keys = set(yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))["train"])
    for name in recipes.list_recipes(ROOT / "recipes"):
        recipe = yaml_text.load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert keys - set(recipe["params"]["train"]) == {
            "precision",
            "device",
            "devices",
            "num_nodes",
            "strategy",
            "seed",
        }, name


def copy_recipes(folder: Path) -> None:
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copy(ROOT / "params.yaml", folder)


def test_a_recipe_that_is_honest_itself_runs_once_and_one_that_fails_does_not_end_the_others(tmp_path, monkeypatch):
    copy_recipes(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    ran: list[tuple[str, bool]] = []

    def record(project: Project, name: str, honest: bool, settings: list[str]) -> None:
        ran.append((name, honest))
        if name == "resnet50-head" and not honest:
            raise recipes.RunError("experiment resnet50-head failed, see above")

    monkeypatch.setattr(recipes, "run_recipe", record)
    with pytest.raises(UserError, match=r"no recipe 'our'"):
        call("recipe", "run", "resnet50-head", "our")
    assert ran == [], "a name is looked up before anything runs"
    with pytest.raises(UserError, match=r"1 of 4 runs failed: experiment resnet50-head failed, see above"):
        call("recipe", "run", "resnet50-head", "ours", "ours")
    assert ran == [("resnet50-head", False), ("resnet50-head", True), ("ours", True), ("ours", True)]


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match=r"(?s)no recipe 'resnet'.*resnet18-layer4"):
        recipes.read_recipe(ROOT / "recipes", "resnet", honest=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("published: {}\nparams: {}", r"mine\.yaml: key protocol is missing"),
        ("protocol: honest\nparams: {}", r"mine\.yaml: key published is missing"),
        ("protocol: honest\npublished: {}", r"mine\.yaml: key params is missing"),
        ("protocol: honest\npublished: {}\nparams: {train: 3}", r"mine\.yaml: params\.train: input should be a valid"),
        ("protocol: honest\npublished: {test: {auc: 1}}\nparams: {}", r"mine\.yaml: published\.test\.auc.*'auroc'"),
        (
            "protocol: own\npublished: {}\nparams: {}",
            r"mine\.yaml: protocol 'own' is not in .*\n\nhint: there are .*honest",
        ),
        ("protocol: honest\npublished: {}\nparams: {train: {rate: 1}}", r"mine\.yaml: train\.rate is no key of params"),
        ("protocol: [", r"mine\.yaml is not valid YAML"),
        ("- 3", r"mine\.yaml must hold one mapping"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, content, message):
    copy_recipes(tmp_path)
    (tmp_path / "recipes/mine.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        recipes.read_recipe(tmp_path / "recipes", "mine", honest=False)
    assert "\n" not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("honest: {draws: 0}", r"protocols\.yaml: honest\.draws: input should be greater than 0"),
        ("honest: {split: 3}", r"protocols\.yaml: honest\.split: input should be a valid dict"),
        ("honest: {split: {by: patient}}", r"split\.by is no key of params"),
    ],
)
def test_a_wrong_protocol_is_one_line(tmp_path, content, message):
    copy_recipes(tmp_path)
    (tmp_path / "recipes/protocols.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        recipes.read_recipe(tmp_path / "recipes", "ours", honest=False)
    assert "\n" not in error.value.message
    assert error.value.hint


def entry(recipe: str, protocol: str, published: dict[str, float], value: float, *settings: str, **facts) -> Entry:
    found = ValueInInterval(value, value - 0.1, min(1, value + 0.1))
    return Entry(
        recipe=recipe,
        protocol=protocol,
        published=published,
        test=dict.fromkeys(leaderboard.SHOWN, found),
        val_auroc=found,
        seconds=12,
        times_test_opened=2,
        settings=["data.source=kaggle", *settings],
        **facts,
    )


def test_leaderboard_sets_published_numbers_above_ours():
    entries = {
        "b-honest": entry("b", "honest", {"accuracy": 0.81}, 0.7, "train.weights=imagenet"),
        "b": entry("b", "random", {"accuracy": 0.81}, 0.8),
        "a": entry("a", "random", {}, 0.9),
    }
    *lines, blank, note = leaderboard.format_leaderboard(entries).splitlines()[2:]
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


def test_films_of_different_sources_are_never_in_one_table():
    entries = {
        "a": entry("a", "random", {}, 0.9),
        "a-phantom": entry("a", "random", {}, 0.8, source="phantom"),
        "b": Entry(source="phantom", times_test_opened=1),  # no draw series came to its end
    }
    lines = [
        line.split(" | ")[:3] for line in leaderboard.format_leaderboard(entries).splitlines() if line[:3] != "|--"
    ]
    head = ["| recipe", "protocol", "AUROC"]
    rows = [["| a", "random", f"{value:.3f} ({value - 0.1:.3f}–{min(1, value + 0.1):.3f})"] for value in (0.9, 0.8)]
    assert lines == [["### kaggle"], [""], head, rows[0], [""], ["### phantom"], [""], head, rows[1]]


def test_other_films_of_the_same_source_have_a_table_of_their_own():
    hashes = {"a": "", "b": "1" * 32, "c": "2" * 32}
    entries = {
        name: entry(name, "random", {}, 0.9, source="folder x.zip", films_md5=md5) for name, md5 in hashes.items()
    }
    titles = [line for line in leaderboard.format_leaderboard(entries).splitlines() if line.startswith("###")]
    assert titles == [f"### folder x.zip, films {films}" for films in ("not recorded", "1" * 7, "2" * 7)]


def test_a_recipe_that_was_not_run_has_a_row_that_says_why_until_it_is():
    left_out = Entry(recipe="c", protocol="own", published={"auroc": 0.989}, settings=["data.source=kaggle"])
    entries = {"a": entry("a", "random", {}, 0.9, films_md5="1" * 32)}
    entries["c"] = left_out.add(Entry(not_run="weights not at hand"))
    lines = leaderboard.format_leaderboard(entries).splitlines()
    assert [line.split(" | ")[:3] for line in lines[3:]] == [
        ["| c", "published", "0.989"],
        ["| c", "own", "not run here: weights not at hand"],
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert "not run here" not in leaderboard.format_leaderboard(entries | {"c": entry("c", "own", {}, 0.9)})


@pytest.mark.parametrize("width", [60, 100])
def test_the_leaderboard_is_folded_to_the_terminal_and_loses_nothing(width):
    entries = leaderboard.read_entries(ROOT)
    board = leaderboard.format_leaderboard(entries)
    folded = leaderboard.show_leaderboard(entries, width)
    assert max(map(len, folded.splitlines())) <= width
    told = " ".join(folded.split())
    for line in board.splitlines()[2:]:
        assert all(cell.strip() in told for cell in line.strip("|").split("|"))


def test_the_readme_shows_the_leaderboard_that_was_run():
    board = leaderboard.format_leaderboard(leaderboard.read_entries(ROOT))
    assert (ROOT / "reports/recipes.md").read_text(encoding="utf-8") == board
    assert board in (ROOT / "README.md").read_text(encoding="utf-8")


class Recorded(Dvc):
    """The commands that recipes run in a folder, none of which happens; experiments of the names in `broken` fail.
    Results are made up, an AUROC of .70 in the first experiment, .71 in the next ..."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.commands: list[list[str]] = []
        self.broken: set[str] = set()
        self.commits: dict[str, str] = {}  # of the experiments that there are, by name

    def call(self, *arguments: str, shown: bool = False) -> int:
        self.commands.append(list(arguments))
        match arguments:
            case ["exp", "run", "--temp", "-n", name, *_]:
                if name in self.broken or name in self.commits:
                    return 1
                self.commits[name] = str(len(self.ran()))
            case ["exp", "rename", *_] if arguments[-2] in self.commits:
                self.commits[arguments[-1]] = self.commits.pop(arguments[-2])
            case ["exp", "remove", name]:
                self.commits.pop(name, None)
        return 0

    def find_commits(self, name: str) -> set[str]:
        return {self.commits[name]} if name in self.commits else set()

    def ran(self) -> list[list[str]]:
        return [command for command in self.commands if "run" in command]

    def read(self, path: Path, revision: str) -> str:
        found = {"value": 0.69 + int(revision) / 100, "low": 0.5, "high": 1.0, "films": 120, "patients": 60}
        metrics = {"metrics": dict.fromkeys(leaderboard.SHOWN, found)}
        report = {split: metrics | {"calibration": {"before": {"log_loss": found}}} for split in ("val", "test")}
        model = {"training": {"weights": "none"}, "data_sha256": "d", "git_revision": "g"}
        return json.dumps({"reports/evaluation.json": report, "models/trained/model.json": model}[str(path)])


@pytest.fixture
def recorded(tmp_path) -> Project:
    copy_recipes(tmp_path)
    return Project(tmp_path, Recorded(tmp_path))


def test_a_run_recipe_is_recorded_with_its_openings(tmp_path, recorded):
    for _ in range(2):
        recipes.run_recipe(recorded, "resnet18-layer4", honest=True, settings=["train.head=2", "train.weights=none"])
    assert recorded.dvc.ran()[0][:5] == ["exp", "run", "--temp", "-n", "resnet18-layer4-honest"]
    assert recorded.dvc.ran()[0][-1] == "train.weights=none"
    assert recorded.dvc.commits == {"resnet18-layer4-honest": "2"}, "the second run in the place of the first"
    kept = read_json(tmp_path / "reports/recipes.json")["resnet18-layer4-honest"]
    assert (kept["source"], kept["times_test_opened"]) == ("phantom", 2)
    assert kept["git_revision"] == "g"
    assert kept["settings"] == ["train.weights=none"], "what the recipe says itself is no change"
    assert kept["published"] == {"accuracy": 0.95, "loss": 0.14}
    assert kept["test"]["loss"] == {"value": 0.71, "low": 0.5, "high": 1.0, "films": 120, "patients": 60}, (
        "the second run, with its interval"
    )
    assert "resnet18-layer4 | honest" in (tmp_path / "reports/recipes.md").read_text()


@pytest.mark.parametrize(("content", "place"), [('{"ours": {"tset": {}}}', "ours.tset"), ("{", "Invalid JSON")])
def test_a_damaged_record_is_named_with_its_place(tmp_path, content, place):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/recipes.json").write_text(content)
    with pytest.raises(UserError, match=rf"recipes\.json: .*{re.escape(place)}") as error:
        leaderboard.read_entries(tmp_path)
    assert "git checkout reports/recipes.json" in error.value.hint


def test_two_that_write_at_once_keep_every_opening_of_test(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom pulmo.experiments.leaderboard import Entry, record\n"
        "for _ in range(25): record(Path(sys.argv[1]), 'ours', Entry(recipe='ours'), opened=1)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, tmp_path]) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert read_json(tmp_path / "reports/recipes.json")["ours"]["times_test_opened"] == 50


def test_what_ran_on_uncommitted_changes_says_so(tmp_path, recorded):
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "add", "--all")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--message", "One")
    assert recipes.run_recipe(recorded, "ours", honest=True).git_revision == "g"
    (tmp_path / "params.yaml").open("a").write("\n")
    assert recipes.run_recipe(recorded, "ours", honest=True).git_revision == "g-dirty"


def test_a_run_that_fails_leaves_the_earlier_experiment_of_its_name(tmp_path, recorded):
    recipes.run_recipe(recorded, "ours", honest=True)
    recorded.dvc.broken.add("ours")
    with pytest.raises(recipes.RunError, match="experiment ours failed"):
        recipes.run_recipe(recorded, "ours", honest=True)
    assert recorded.dvc.commits == {"ours": "1"}
    kept = read_json(tmp_path / "reports/recipes.json")["ours"]
    assert (kept["times_test_opened"], kept["test"]["auroc"]["value"]) == (1, 0.7)


def test_a_recipe_whose_weights_cannot_be_had_is_left_out_and_the_others_run(tmp_path, recorded, monkeypatch):
    lead_hugging_face_to(9, tmp_path / "cache", monkeypatch)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr("pulmo.experiments.project.Project", lambda root: recorded)
    said = call("recipe", "run", "dino-linear", "ours", "--protocol", "honest")
    assert set(recorded.dvc.commits) == {"ours"}
    assert "Hugging Face could not be reached" in said
    assert "not run here: weights not at hand" in said
    assert "dino-linear | honest | not run here" in (tmp_path / "reports/recipes.md").read_text()
    with pytest.raises(UserError, match=r"2 of 2 runs failed: dino-linear was not run"):
        call("recipe", "run", "dino-linear")


def test_draws_before_the_one_that_fails_have_opened_the_test_set(tmp_path, recorded):
    recorded.dvc.broken.add("resnet18-head-3epochs-draw-3")
    with pytest.raises(recipes.RunError, match="draw-3 failed"):
        recipes.run_recipe(recorded, "resnet18-head-3epochs", honest=False)
    assert read_json(tmp_path / "reports/recipes.json")["resnet18-head-3epochs"]["times_test_opened"] == 2
    recorded.dvc.broken.clear()
    assert recipes.run_recipe(recorded, "resnet18-head-3epochs", honest=False).times_test_opened == 12


def test_films_of_another_source_make_a_row_and_an_experiment_of_their_own(tmp_path, recorded):
    (tmp_path / "reports").mkdir()
    shutil.copy(ROOT / "reports/recipes.json", tmp_path / "reports")
    shipped = read_json(ROOT / "reports/recipes.json")
    recipes.run_recipe(recorded, "ours", honest=True)
    entries = read_json(tmp_path / "reports/recipes.json")
    assert entries["ours"] == shipped["ours"]
    assert entries["ours-phantom"]["source"] == "phantom"
    assert set(recorded.dvc.commits) == {"ours-phantom"}
    real = ["data.source=folder", "data.folder.path='/films/chest_xray.zip'"]
    kept = recipes.run_recipe(recorded, "ours", honest=True, settings=real)
    assert (kept.source, kept.times_test_opened) == (
        "folder chest_xray.zip",
        shipped["ours"]["times_test_opened"] + 1,
    )
    assert kept.settings == ["data.source=folder", "data.folder.path=PATH/chest_xray.zip"], "which Git keeps"


def test_a_shallow_clone_is_refused_with_the_cure(tmp_path):
    first, clone = tmp_path / "first", tmp_path / "clone"
    first.mkdir()
    copy_recipes(first)
    run(first, "git", "init", "--quiet")
    for message in ("One", "Two"):
        (first / "note").write_text(message)
        run(first, "git", "add", "--all")
        run(first, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--message", message)
    run(tmp_path, "git", "clone", "--quiet", "--depth", "1", first.as_uri(), str(clone))
    for start in (
        lambda: recipes.run_recipe(Project(clone), "ours", honest=True),
        lambda: run_sweep(Project(clone), SWEEP),
    ):
        with pytest.raises(UserError, match=r"(?s)is a shallow clone.*git fetch --unshallow"):
            start()


def test_a_setting_of_no_key_is_refused_before_anything_runs(tmp_path, recorded):
    with pytest.raises(UserError, match=r"-S train\.rate is no key of params\.yaml"):
        recipes.run_recipe(recorded, "ours", honest=True, settings=["train.rate=0.1"])
    assert not recorded.dvc.commands


def test_a_protocol_of_several_draws_is_run_on_each_and_told_by_mean_and_range(tmp_path, recorded):
    settings = ["train.lr=0.1", "split.seed=7"]
    kept = recipes.run_recipe(recorded, "resnet18-head-3epochs", honest=False, settings=settings)
    ran = recorded.dvc.ran()
    assert [command[4] for command in ran] == [
        "resnet18-head-3epochs",
        *(f"resnet18-head-3epochs-draw-{draw}" for draw in range(2, 11)),
    ]
    assert [command[-1] for command in ran] == [f"split.seed={seed}" for seed in range(42, 52)], "whatever is set"
    assert ran[0].index("train.lr=0.01") < ran[0].index("train.lr=0.1"), "what is set comes after the recipe"
    assert kept.settings == ["train.lr=0.1"]
    assert kept.test
    assert vars(kept.test["auroc"]) == pytest.approx({"value": 0.745, "low": 0.7, "high": 0.79})
    assert (kept.draws, kept.times_test_opened) == (10, 10)
    board = (tmp_path / "reports/recipes.md").read_text()
    assert "balanced-300-100, 10 draws | 0.745 (0.700–0.790)" in board
    assert "Of several draws: mean (lowest–highest)" in board
