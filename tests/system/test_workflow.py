import re

import yaml_text
from small_project import ROOT

WORKFLOW = yaml_text.load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def commands() -> list[str]:
    """Every `run` of the workflow, with each value of the matrix in it."""
    found = []
    for job in WORKFLOW["jobs"].values():
        targets = job["strategy"]["matrix"]["target"] + [
            entry["target"] for entry in job["strategy"]["matrix"]["include"]
        ]
        for step in job["steps"]:
            found += [step.get("run", "").replace("${{ matrix.target }}", target) for target in targets]
    return found


def test_the_workflow_makes_only_what_the_makefile_has():
    made = {target for command in commands() for target in re.findall(r"\bmake (\S+)", command)}
    assert {"check", "test", "repro"} <= made
    assert made <= TARGETS
    assert "${{" not in " ".join(commands())


def test_the_workflow_has_the_history_and_reports_the_metrics():
    (job,) = WORKFLOW["jobs"].values()
    (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0
    (report,) = [step["run"] for step in job["steps"] if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    assert "dvc metrics diff" in report
    assert "origin/main" in report
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_the_hook_checks_what_the_workflow_checks():
    hooks = yaml_text.load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["make check"]


def test_every_target_that_is_no_file_says_so_and_is_explained():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split())
    assert phony == TARGETS
    assert set(re.findall(r"^([a-z-]+):.*## \S", text, flags=re.MULTILINE)) == TARGETS
