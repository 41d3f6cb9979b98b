import subprocess

from pulmo.reporting.origin import differing_params, reproduce_command


def test_the_command_names_the_params_that_differ_from_the_commit(tmp_path):
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "a")
    (tmp_path / "params.yaml").write_text("train:\n  lr: 0.001\n  epochs: 8\n  sizes: [1, 2]\n  weights: none\n")
    git("add", ".")
    git("commit", "-qm", "x")
    revision = git("rev-parse", "HEAD")
    same = {"train": {"lr": 0.001, "epochs": 8.0, "sizes": (1, 2), "weights": "none"}}
    assert reproduce_command(tmp_path, revision, same) == f"git checkout {revision} && dvc repro"
    assert reproduce_command(tmp_path, revision, {"later": 1} | same).endswith("&& dvc repro")
    other = {"train": same["train"] | {"lr": 0.0005, "weights": "a b; rm"}}
    command = f"git checkout {revision} && dvc exp run -S train.lr=0.0005 -S 'train.weights=a b; rm'"
    assert reproduce_command(tmp_path, revision, other) == command
    assert reproduce_command(tmp_path, "0" * 40, other).endswith("&& dvc repro")


def test_params_that_one_side_lacks_are_named():
    assert differing_params({"a": {"x": 1, "y": True}}, {"a": {"y": False}}) == {
        "a.x": ("1", "–"),
        "a.y": ("true", "false"),
    }
