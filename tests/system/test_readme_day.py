"""The ten commands of the README, read out of it and typed one after the other: each must do what is shown there."""

import re
import subprocess
import sys
import tempfile
from os import environ, pathsep
from pathlib import Path

import pytest
from small_project import ROOT, TINY, commit, make_checkout, run

from pulmo.experiments.doctor import CHECKS

pytestmark = pytest.mark.slow
GATES_OPEN = {"promote": {"min_auroc": 0.0, "max_ece": 1.0, "min_shortcut_margin": -1.0}}
RENDERED = {"evaluate": {"rendered_films": 8}}  # on which the gate for calibration looks
NUMBER = r"[-+]?\d[\d.]*"
FILM = re.compile(r"data/raw/\S+")


def read_commands() -> list[tuple[str, list[str]]]:
    """The commands of the section and the lines that are shown below each; lines with `...` end there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Ten commands for a working day")[2].partition("\n## ")[0]
    commands: list[tuple[str, list[str]]] = []
    for line in section.splitlines():
        if line.startswith("    $ "):
            commands.append((line.removeprefix("    $ "), []))
        elif line.startswith("    ") and commands:
            commands[-1][1].append(line.strip().partition("...")[0].strip())
        elif line.strip():  # prose ends a block; examples of other languages have no `$`
            commands.append(("", []))
    # `curl` asks a server that is started beside it, as the tests of `pulmo serve` do.
    commands = [entry for entry in commands if entry[0] and not entry[0].startswith("curl ")]
    return [(command, [line for line in shown if line]) for command, shown in commands]


def as_pattern(line: str) -> str:
    """A line of the README as a pattern: words as they stand, any number, hash, label or interval."""
    pattern = re.escape(re.sub(r"\s+", " ", line))
    pattern = re.sub(r"(?<![\w/])(\\[-+])?\d+(\\\.\d+)*", lambda _: NUMBER, pattern)
    pattern = (
        pattern.replace(f"{NUMBER}–{NUMBER}", f"{NUMBER} to {NUMBER}")
        .replace(r"\ to\ ", " to ")
        .replace(rf"{NUMBER} to {NUMBER}", rf"{NUMBER}(?:–| to ){NUMBER}")
    )
    interval = rf"\({NUMBER}(?:–| to ){NUMBER}\)"
    # None stands where every resample came to the same.
    pattern = pattern.replace(rf"\ {interval}", f"(?: {interval})?")
    return pattern.replace("PNEUMONIA", "(?:NORMAL|PNEUMONIA)").replace(r"p\ =", "p [<=]")


def type_in(folder: Path, command: str) -> tuple[int, str]:
    """Exit code and all that a command printed, typed in a terminal with the environment active."""
    path = f"{Path(sys.executable).parent}{pathsep}{environ['PATH']}"
    variables = {**environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1", "COLUMNS": "100"}
    variables["VIRTUAL_ENV"] = str(Path(sys.executable).parents[1])
    with tempfile.TemporaryFile("w+") as out:  # no pipe: DVC's workers would hold it open
        done = subprocess.run(command, shell=True, cwd=folder, env=variables, stdout=out, stderr=out)
        out.seek(0)
        return done.returncode, out.read()


def check(command: str, shown: list[str], code: int, said: str) -> None:
    """Fail where a command did not end as it is shown, or a line that is shown is not among what it said."""
    assert (code == 0) == (not any(line.startswith("error:") for line in shown)), f"$ {command}\n{said}"
    lines = [re.sub(r"\s+", " ", line.strip()) for line in said.splitlines()]
    if command == "pulmo doctor":
        assert [line.split()[0] for line in lines if line.startswith("error")] == []
        for name in CHECKS:
            assert any(re.match(rf"ok\s+{name}", line) for line in shown), f"{name} is not in the README"
            assert any(re.match(rf"(ok|warning) {name}", line) for line in lines), said
        return
    seen = [line for line in shown if any(re.match(as_pattern(line), real) for real in lines)]
    absent = [line for line in shown if line not in seen]
    if command.startswith("dvc metrics diff"):  # which leaves out what does not differ
        assert any(line.startswith("reports/metrics.json") for line in seen), said
        absent = [line for line in absent if not line.startswith("reports/metrics.json")]
    assert not absent, f"$ {command}\nshown but not said: {absent}\n{said}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone after `make repro`: HEAD tells of the maintainers' results, whose outputs nobody has."""
    folder = make_checkout(tmp_path_factory.mktemp("readme") / "clone", TINY, GATES_OPEN, RENDERED)
    run(folder, "dvc", "repro")
    own = (folder / "dvc.lock").read_text(encoding="utf-8")
    theirs = re.sub(r"md5: (\w{30})", lambda match: f"md5: {match[1][::-1]}", own)
    (folder / "dvc.lock").write_text(theirs, encoding="utf-8")
    commit(folder, "The maintainers' results")
    (folder / "dvc.lock").write_text(own, encoding="utf-8")
    return folder


def test_the_ten_commands_do_what_the_readme_shows(clone: Path) -> None:
    code, said = type_in(clone, "pulmo summary")
    assert (code, 'git commit -am "My first results"' in said) == (0, True), said
    code, said = type_in(clone, "pulmo experiments")
    assert re.search(r"^workspace +\d", said, flags=re.MULTILINE), said
    code, said = type_in(clone, "pulmo doctor")
    assert re.search(r"warning +results +HEAD's results were made elsewhere", said), said
    film = next((clone / "data/raw/test/PNEUMONIA").iterdir()).relative_to(clone)
    commands = read_commands()
    assert len(commands) >= 13
    for command, shown in commands:
        typed = FILM.sub(str(film), command)
        shown = [FILM.sub(str(film), line) for line in shown]
        check(typed, shown, *type_in(clone, typed))
