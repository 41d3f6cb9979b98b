import contextlib
import dataclasses
import re
import shutil
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_package import make_package
from small_project import write_params
from toy_settings import SECRET_ADDRESSES
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.files import write_csv, write_json
from pulmo.base.params import PromoteParams
from pulmo.base.params_file import load_params
from pulmo.cli.answers import find_place
from pulmo.experiments import doctor
from pulmo.experiments.project import Project
from pulmo.experiments.promotion import Gate, Verdict, check_gates, compare_on_validation, find_candidate, format_gates
from pulmo.films.rows.labels import LABELS
from pulmo.model.classifier import load_classifier
from pulmo.tracking import registry, turns
from pulmo.tracking.contents import Run
from pulmo.tracking.logged_models import log_model
from pulmo.tracking.runs import evaluate_run
from pulmo.tracking.store import open_store, store_uri
from pulmo.tracking.upkeep import mark_replaced, move_artifacts

BOUNDS = PromoteParams(min_auroc=0.9, max_ece=0.05, max_leaks=0, min_shortcut_margin=0.01)
CLEAN = {"patients_across_splits": [], "exact_duplicates_across_splits": []}


def report(auroc: float = 0.97, low: float | None = 0.93, ece: float = 0.04, shortcut: float | None = 0.9) -> dict:
    """What the gates read of reports/evaluation.json; the test part is there to be ignored."""
    n = {"films": 120, "patients": 60}
    plain = {"low": None, "high": None} | n
    family = {"val": None if shortcut is None else {"value": shortcut} | plain, "test": {"value": 1.0} | plain}
    return {
        "val": {
            "films": 120,
            "metrics": {"auroc": {"value": auroc, "low": low, "high": 1.0} | n},
            "calibration": {"after": {"ece": {"value": ece, "chance_high": 0.03}}},
        },
        "test": {"metrics": {"auroc": {"value": 0.1, "low": 0.0, "high": 0.2} | n}},
        "shortcuts": {"families": [{"val": None, "test": None}, {"val": {"value": 0.6} | plain}, family]},
    }


def predictions(skill: float, films: int = 120, seed: int = 0) -> pd.DataFrame:
    """Like reports/predictions.csv, two films a patient; the AUROC grows with `skill`, the luck is the same for all."""
    dice = np.random.default_rng(seed)
    label = np.arange(films) // 2 % 2
    logit = dice.normal(size=films) + skill * (2 * label - 1)
    return pd.DataFrame(
        {
            "path": [f"train/{LABELS[value]}/{index:03}.jpeg" for index, value in enumerate(label)],
            "split": np.where(np.arange(films) < films * 3 // 4, "val", "test"),
            "patient": [f"p{index // 2}" for index in range(films)],
            "label": label,
            "logit": logit,
            "called": (logit > 0).astype(int),
        }
    )


def failed(found: list[Gate]) -> list[str]:
    return [gate.name.split()[0] for gate in found if not gate.passed]


@pytest.mark.parametrize(
    ("found", "leakage", "against"),
    [
        (report(), CLEAN, []),
        (report(low=0.89), CLEAN, ["AUROC,"]),
        (report(low=None), CLEAN, ["AUROC,"]),
        (report(auroc=0.905), CLEAN, ["AUROC"]),
        (report(ece=0.06), CLEAN, ["calibration"]),
        (report(shortcut=None), CLEAN, []),
        (report(), CLEAN | {"patients_across_splits": ["p1"]}, ["patients"]),
        (report(), CLEAN | {"exact_duplicates_across_splits": ["x"]}, ["patients"]),
        (report(), None, ["patients"]),
    ],
)
def test_each_gate_stops_what_it_is_for(found, leakage, against):
    assert failed(check_gates(found, leakage, BOUNDS)) == against


def test_chance_excuses_a_calibration_error_in_few_films():
    found = report(ece=0.06)
    found["val"]["calibration"]["after"]["ece"]["chance_high"] = 0.07
    assert failed(check_gates(found, CLEAN, BOUNDS)) == []
    lines = format_gates(check_gates(found, CLEAN, BOUNDS), 120).splitlines()
    assert any(
        re.fullmatch(r"passed  calibration error \(ECE\), films as they are +0\.060  at most 0\.070", line)
        for line in lines
    )
    assert " ".join(lines[-2:]) == (
        "calibration error (ECE), films as they are: at most 0.070, not 0.050: in 120 films a calibrated "
        "model has that by chance alone"
    )
    assert not any(gate.note for gate in check_gates(report(), CLEAN, BOUNDS))


@pytest.mark.parametrize(("ece", "against"), [(0.04, []), (0.06, ["calibration"])])
def test_calibration_is_judged_on_re_rendered_films_where_there_are_any(ece, against):
    found = report(ece=0.1 - ece)
    found["val"]["calibration_rendered"] = {"ece": {"value": ece, "chance_high": 0.03}, "films": 90}
    gates = check_gates(found, CLEAN, BOUNDS)
    assert failed(gates) == against
    assert re.search(rf"calibration error \(ECE\), films re-rendered +{ece:.3f}  at most 0\.050", format_gates(gates))


def test_gates_read_as_a_table_that_says_why_a_bound_is_wider():
    gates = [
        Gate("ECE", 0.1234, 0.05, at_least=False, note="for a reason that is too long for a narrow terminal"),
        Gate("AUROC of validation", None, 0.9, at_least=True),
    ]
    assert format_gates(gates, 60).splitlines() == [
        "FAILED  ECE                    0.123  at most 0.050",
        "FAILED  AUROC of validation  unknown  at least 0.900",
        "ECE: for a reason that is too long for a narrow terminal",
    ]


def test_validation_alone_decides():
    weak, strong = predictions(0.4), predictions(1.5)
    beaten = compare_on_validation(weak, strong)
    assert beaten.low > 0
    assert beaten.films == 90
    strong.loc[strong.split == "test", "logit"] *= -1
    assert compare_on_validation(weak, strong) == beaten
    assert compare_on_validation(strong, weak).high < 0
    with pytest.raises(UserError, match="the two validation sets differ: 1 films"):
        compare_on_validation(weak, strong.iloc[1:])


def test_a_draw_does_not_replace_the_champion():
    champion = registry.Version(1, "r", "s", pd.Timestamp(0).to_pydatetime(), {"experiment": "old"}, True)
    same = compare_on_validation(predictions(1.0), predictions(1.0))
    (objection,) = Verdict([], champion, same).objections
    assert "does not beat old on validation" in objection


def test_the_bounds_of_the_repository_name_every_gate(tmp_path):
    write_params(tmp_path)
    bounds = load_params(tmp_path / "params.yaml").promote
    gates = check_gates(report(), CLEAN, bounds)
    assert failed(gates) == []
    assert sorted(gate.bound for gate in gates) == sorted(bounds.model_dump().values())


@pytest.fixture
def root(tmp_path, monkeypatch, empty_store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty_store(tmp_path)
    write_params(tmp_path)
    (tmp_path / ".dvc").mkdir()
    for command in (["init", "-q"], ["config", "user.name", "Ada"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def evaluated_run(root, monkeypatch, name: str, films: pd.DataFrame, found: dict) -> None:
    """A run as stage evaluate leaves it, with the given predictions and report."""
    monkeypatch.setenv("DVC_EXP_NAME", name)
    package = root / "models/package"
    make_package(package, head=1, size=48, fit="squash")
    write_csv(root / "reports/predictions.csv", films)
    write_json(root / "reports/evaluation.json", found)
    write_json(root / "reports/leakage.json", CLEAN)
    with evaluate_run(root, {"run_id": "none", "environment": {}}, {}, {}, []) as run:
        for path in (root / "reports").iterdir():
            run.log_path(path)
            run.tag_hash(path.stem, path.read_bytes())
        log_model(run.client, run.run_id, package, np.zeros((48, 48), np.uint8))


def test_versions_and_the_registered_model_say_what_came_out(root, monkeypatch):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    store = open_store(root)
    (held,) = store.find_runs()
    Run(store.client, held.info.run_id, "base").describe("AUROC of **0.97**.")
    call("promote", "base")
    version = store.client.get_model_version(registry.MODEL, "1")
    assert version.description.startswith("AUROC of **0.97**.")
    link = f"#/experiments/{store.experiment}/runs/{held.info.run_id}/artifacts/model_card.html?"
    assert f"]({link}" in version.description
    model = store.client.get_registered_model(registry.MODEL)
    assert "Not a medical device." in model.description
    assert "Promoted last: version 1, base. AUROC of **0.97**." in model.description
    logged = store.client.get_logged_model(held.outputs.model_outputs[0].model_id)
    assert (logged.name, logged.tags["dvc.experiment"]) == ("base", "base")

    store.client.update_registered_model(registry.MODEL, description="Our own words")
    evaluated_run(root, monkeypatch, "better", predictions(1.5), report())
    call("promote", "better")
    assert store.client.get_registered_model(registry.MODEL).description == "Our own words"


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("evaluation.json", r"evaluation\.json of run later is not the one that was evaluated"),
        ("leakage.json", r"leakage\.json of run later is not the one that was evaluated"),
        ("predictions.csv", r"cannot be compared with the champion: predictions\.csv of run later is not the one"),
    ],
)
def test_a_report_that_was_edited_in_the_store_promotes_nobody(root, monkeypatch, file, said):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    evaluated_run(root, monkeypatch, "later", predictions(1.5), report())
    call("promote", "base")
    store = open_store(root)
    run = registry.find_candidate(store, "later").run_id
    store.client.log_text(run, (store.read_artifact(run, file) or "") + "\n", file)
    with pytest.raises(UserError, match=said):
        call("promote", "later")
    assert registry.read_champion(open_store(root)).name == "base"


def test_of_two_promotions_at_once_one_is_told_that_the_champion_changed(root, monkeypatch):
    for name in ("one", "two"):
        evaluated_run(root, monkeypatch, name, predictions(0.6), report())
    store, read = open_store(root), registry.read_champion
    candidates = [registry.find_candidate(store, name) for name in ("one", "two")]

    def read_slowly(asked):
        champion = read(asked)
        time.sleep(0.5)
        return champion

    def try_to_promote(candidate) -> str:
        try:
            return f"version {registry.register(store, candidate, {'experiment': candidate.name}, None)}"
        except UserError as error:
            return error.message

    monkeypatch.setattr(registry, "read_champion", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(try_to_promote, candidates))
    assert said == ["the champion changed while this model was compared with it", "version 1"]


def test_promotions_from_many_checkouts_replace_each_other_one_by_one(root, monkeypatch):
    """Each asks again until it is its turn, as the message says; no champion is replaced unseen."""
    names = [f"run-{number}" for number in range(4)]
    for name in names:
        evaluated_run(root, monkeypatch, name, predictions(0.6), report())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(root))

    def promote(name: str) -> None:
        checkout = root.parent / f"checkout-{name}"
        checkout.mkdir()
        store = open_store(checkout)
        candidate = registry.find_candidate(store, name)
        done = False
        while not done:
            champion = registry.read_champion(store)
            replaced = {"replaced": champion.name} if champion else {}
            with contextlib.suppress(UserError):  # the champion changed
                registry.register(store, candidate, {"experiment": name, **replaced}, champion)
                done = True

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, names))
    versions = registry.read_versions(open_store(root))
    assert sorted(version.name for version in versions) == names
    assert [version.tags.get("replaced") for version in versions] == [None, *(v.name for v in versions[:-1])]
    assert [version.is_champion for version in versions] == [False, False, False, True]


@pytest.mark.parametrize("step", ["set_registered_model_alias", "delete_model_version_tag"])
def test_a_promotion_that_was_killed_delays_the_next_and_is_no_champion_by_half(root, monkeypatch, step):
    for name in ("one", "two"):
        evaluated_run(root, monkeypatch, name, predictions(0.6), report())
    store = open_store(root)
    one, two = (registry.find_candidate(store, name) for name in ("one", "two"))

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store.client), step, kill)
        with pytest.raises(KeyboardInterrupt):
            registry.register(store, one, {"experiment": "one"}, None)
    champion = registry.read_champion(store)
    assert (champion and champion.name) == ("one" if step == "delete_model_version_tag" else None)
    monkeypatch.setattr(turns, "_WAIT", 0.2)
    with pytest.raises(UserError, match="version 1 has been under way for too long"):
        registry.register(store, two, {"experiment": "two"}, champion)
    assert registry.read_champion(store) == champion
    with closing(sqlite3.connect(root / "mlflow.db")) as database:  # a minute later
        database.execute("UPDATE model_versions SET creation_time = creation_time - 61000")
        database.commit()
    registry.register(store, two, {"experiment": "two"}, registry.read_champion(store))
    names = [version.name for version in registry.read_versions(store)]
    assert names == (["one", "two"] if champion else ["two"])


def test_to_ask_for_a_champion_makes_no_store(root):
    (root / "mlflow.db").unlink()
    assert find_place(None).name == "models/package"
    with pytest.raises(UserError, match="no champion yet"):
        call("history")
    assert not (root / "mlflow.db").exists()


def test_champions_follow_each_other(root, monkeypatch):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    evaluated_run(root, monkeypatch, "leaky", predictions(1.5), report(shortcut=0.97))
    evaluated_run(root, monkeypatch, "same", predictions(0.6), report())
    evaluated_run(root, monkeypatch, "elsewhere", predictions(2.0, films=200), report())
    evaluated_run(root, monkeypatch, "better", predictions(1.5), report())
    assert "base is champion, version 1" in call("promote", "base")
    with pytest.raises(UserError, match="base is champion already, as version 1"):
        call("promote", "base")
    with pytest.raises(
        UserError, match=r"(?s)leaky was not promoted: gate failed: AUROC beyond .* --force --reason TEXT"
    ):
        call("promote", "leaky")
    with pytest.raises(UserError, match="same was not promoted: does not beat base on validation"):
        call("promote", "same")
    with pytest.raises(
        UserError, match=r"(?s)elsewhere was not promoted: cannot be compared .* validation sets differ"
    ):
        call("promote", "elsewhere")
    assert len(registry.read_versions(open_store(root))) == 1, "a refusal registers nothing"
    for half in (["--force"], ["--reason", "because"], ["--force", "--reason", " "]):
        with pytest.raises(UserError, match="--force and --reason TEXT go together"):
            call("promote", "same", *half)

    assert "version 2" in call("promote", "elsewhere", "--force", "--reason", "new hospital")
    assert "version 3" in call("promote", "base", "--force", "--reason", "roll back")
    assert "version 4" in call("promote", "better", "--force", "--reason", "asked for in May")
    champion = registry.read_champion(open_store(root))
    assert (champion.number, champion.name) == (4, "better")
    lines = call("history").splitlines()
    assert lines[0].startswith("version 4, better (champion): 20")
    assert lines[0].endswith("UTC by Ada")
    assert lines[1].strip().startswith("beats base on validation, AUROC 0.")
    assert lines[1].endswith("; asked for in May"), "a reason that was not needed is recorded too"
    assert lines[2] == "    replaced: version 3, base"
    assert "    forced: new hospital" in lines
    assert any(line.startswith("    objections: cannot be compared with the champion") for line in lines)
    assert lines[-1] == "    first champion, every gate passed"


def test_the_champion_answers_unless_a_package_is_named(root, monkeypatch):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    call("promote", "base")
    shutil.rmtree(root / "models")
    place = find_place(None)
    assert (place.name, place.version) == ("base", "1")
    assert load_classifier(place.folder).info.arch == "squeezenet1_1"
    film = root / "film.png"
    Image.fromarray(np.arange(2500, dtype=np.uint8).reshape(50, 50)).save(film)
    answer = CliRunner().invoke(cli.app, ["predict", str(film)])
    assert answer.stderr == "asked: champion base, version 1\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(root))
    loaded = mlflow.pyfunc.load_model("models:/pulmo@champion")
    served = loaded.predict(pd.DataFrame({"film": [film.read_bytes()]})).iloc[0]
    assert f"{served.label}  prob_pneumonia {served.prob_pneumonia:.3f}" in answer.stdout
    with pytest.raises(UserError, match=r"models/package/model\.json not found"):
        call("predict", "film.png", "--package", "models/package")


def test_a_damaged_package_is_never_promoted(root, monkeypatch):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    source = registry.fetch_package(open_store(root), registry.find_candidate(open_store(root), "base"))
    (source / "weights.safetensors").write_bytes(b"\0" * 1000)
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        call("promote", "base", "--force", "--reason", "I insist")
    assert registry.read_champion(open_store(root)) is None


def test_two_promotions_at_once_do_not_overtake_each_other(root, monkeypatch):
    for name in ("a", "b"):
        evaluated_run(root, monkeypatch, name, predictions(0.6), report())
    a, b = (registry.find_candidate(open_store(root), name) for name in ("a", "b"))
    registry.register(open_store(root), a, {"experiment": "a"}, None)
    with pytest.raises(UserError, match="the champion changed"):
        registry.register(open_store(root), b, {"experiment": "b"}, None)
    assert registry.read_champion(open_store(root)).name == "a"


def test_an_experiment_without_a_run_or_model_names_the_cure(root, monkeypatch):
    with pytest.raises(UserError, match=r"(?s)no evaluated run of 'theirs' in sqlite:.*`pulmo sync`"):
        call("promote", "theirs")
    monkeypatch.setenv("DVC_EXP_NAME", "it is")
    with evaluate_run(root, {"run_id": "none", "environment": {}}, {}, {}, []):
        pass
    with pytest.raises(
        UserError,
        match=r"(?s)'it is' holds no model\n\nhint: `dvc exp apply 'it is' && dvc exp run -f -s evaluate` makes",
    ):
        call("promote", "it is")
    monkeypatch.delenv("DVC_EXP_NAME")
    with evaluate_run(root, {"run_id": "none", "environment": {}}, {}, {}, []) as plain:
        pass
    with pytest.raises(UserError, match=r"(?s)holds no model\n\nhint: `dvc repro -f -s evaluate` makes"):
        call("promote", plain.run_id)


def test_what_a_plain_repro_left_can_be_promoted(root, monkeypatch):
    evaluated_run(root, monkeypatch, "", predictions(0.6), report())
    (run,) = open_store(root).find_runs()
    assert f"{run.info.run_name} is champion, version 1" in call("promote", "workspace")
    with pytest.raises(UserError, match="no evaluated run of 'elsewhere'"):
        call("promote", "elsewhere")
    write_json(root / "reports/evaluation.json", report(auroc=0.96))
    with pytest.raises(UserError, match="no evaluated run of 'workspace'"):
        call("promote", "workspace")


def test_what_was_applied_is_the_run_of_its_evaluation_wherever_it_was_trained(root, monkeypatch):
    reports = {name: report(auroc=auroc) for name, auroc in (("trained", 0.97), ("cached", 0.96), ("later", 0.95))}
    for name, found in reports.items():
        evaluated_run(root, monkeypatch, name, predictions(0.6), found)
    write_json(root / "reports/evaluation.json", reports["cached"])
    assert find_candidate(Project(root), "workspace").name == "cached"
    (run,) = open_store(root).find_runs("attributes.run_name = 'cached'")
    mark_replaced(open_store(root), run, True)
    with pytest.raises(UserError, match="no evaluated run of 'cached'"):
        registry.find_candidate(open_store(root), "cached")


def test_a_model_that_is_no_longer_in_the_store_is_one_line(root, monkeypatch):
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    shutil.rmtree(registry.find_candidate(open_store(root), "base").source.removeprefix("file://"))
    with pytest.raises(UserError, match=r"(?s)^the model at file://.* cannot be had \(.*\)\n\nhint: .*$"):
        call("promote", "base")
    client = open_store(root).client
    client.delete_logged_model(registry.find_candidate(open_store(root), "base").model_id)
    with pytest.raises(
        UserError, match=r"(?s)^the model of 'base' is no longer in the store \(.*\)\n\nhint: promote another run$"
    ):
        call("promote", "base")


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_what_promote_cannot_find_tells_scheme_and_host_alone(address, root, monkeypatch):
    def fail(artifact_uri, **_):
        raise OSError(f"no answer from {artifact_uri} with secret")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    store = dataclasses.replace(open_store(root), uri=address)
    with pytest.raises(UserError, match=r"no evaluated run of 'theirs' in \w+:?//host") as error:
        registry.find_candidate(store, "theirs")
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match=r"the model at \w+:?//host cannot be had") as error:
        registry.fetch_package(store, registry.Candidate("run", "theirs", address, "m-1"))
    assert "secret" not in str(error.value)


def test_a_checkout_that_was_moved_or_copied_finds_its_artifacts_again(root, monkeypatch):
    (root / "mlflow.db").unlink()  # one whose artifacts lie elsewhere
    evaluated_run(root, monkeypatch, "base", predictions(0.6), report())
    call("promote", "base")
    assert move_artifacts(open_store(root)) == 0
    moved = root.parent / "moved, it's 100% ours"
    moved.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (root / name).rename(moved / name)
    assert doctor.check_store(Project(moved)).cure == "pulmo sync"
    assert doctor.check_store(Project(moved)).state == "warning"
    assert move_artifacts(open_store(moved)) == 5
    assert doctor.check_store(Project(moved)).state == "ok"
    for found in (registry.find_candidate(open_store(moved), "base"), registry.read_champion(open_store(moved))):
        assert load_classifier(registry.fetch_package(open_store(moved), found)).info.size == 48
    assert open_store(moved).read_artifact("base", "leakage.json")

    copied = root.parent / "copied"
    shutil.copytree(moved, copied)
    (removed,) = [path for path in copied.rglob("predictions.csv") if "mlartifacts" in path.parts]
    shutil.rmtree(removed.parent)
    assert move_artifacts(open_store(copied)) == 4, "the run's own files are where they were alone"
    assert open_store(copied).read_artifact("base", "leakage.json")
    bare = root.parent / "bare"
    bare.mkdir()
    shutil.copy(moved / "mlflow.db", bare)
    assert move_artifacts(open_store(bare)) == 0


def test_a_model_in_a_remote_store_is_fetched_once(root, monkeypatch):
    asked = []

    def download(artifact_uri, dst_path, tracking_uri):
        asked.append(artifact_uri)
        write_json(Path(dst_path) / "data/package/model.json", {})

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    model = registry.Candidate("run", "theirs", "s3://bucket/model", "m-1")
    folders = {registry.fetch_package(open_store(root), model) for _ in range(2)}
    assert folders == {root / ".champion/run/data/package"}
    assert asked == ["s3://bucket/model"]

    def download_late(artifact_uri, dst_path, tracking_uri):
        for folder in (Path(dst_path), root / ".champion/late"):  # where another process was faster
            write_json(folder / "data/package/model.json", {})

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download_late)
    late = registry.fetch_package(open_store(root), registry.Candidate("late", "theirs", "s3://bucket/model", "m-2"))
    assert late == root / ".champion/late/data/package"
