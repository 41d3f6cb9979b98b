"""DVC's own table of experiments, as `make compare` asks for it."""

import re
import shlex

import pytest
from small_project import ROOT, run
from toy_project import STAGE, make_toy

MORE = 'metrics["test"] |= dict.fromkeys(("accuracy", "sensitivity", "specificity", "f1"), lr)'


def read_command() -> list[str]:
    recipe = re.search(r"^compare:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return shlex.split(recipe[1].replace("\\\n", " ").strip().removeprefix("@"))


def test_the_readme_names_the_command_that_make_compare_runs():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").split())
    assert " ".join(shlex.join(read_command()).split()) in text


@pytest.mark.slow
def test_the_table_of_dvc_shows_in_120_columns_what_differs_and_what_came_of_it(tmp_path):
    stage = STAGE.replace('(reports / "metrics.json")', f'{MORE}\n(reports / "metrics.json")', 1)
    folder = make_toy(
        tmp_path / "toy", stage, params="train:\n  lr: 0.1\n  label_smoothing: 0\n  ema: 0\n  epochs: 8\n"
    )
    run(folder, "dvc", "exp", "run", "--temp", "-n", "resnet18-weighted", "-S", "train.lr=0.2")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "b", "-S", "train.label_smoothing=0.05", "-S", "train.ema=0.9")
    lines = run(folder, *read_command(), COLUMNS="120").splitlines()
    assert lines[1].split()[1:] == ["val.auroc", "test.auroc", "train.lr", "train.label_smoothing", "train.ema"]
    assert max(map(len, lines)) <= 120
    assert "…" not in "".join(lines)
    assert [re.search(r"\[(.*)\]", line)[1] for line in lines if "[" in line] == [
        "resnet18-weighted",
        "b",
    ]
