"""The code that each stage of dvc.yaml depends on, found by following the imports of its script."""

from pathlib import Path

from pulmo.base.code import reached_modules
from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes
from pulmo.base.yaml import read_yaml

PIPELINE = Path("dvc.yaml")
# Plumbing whose edits cannot change what a stage computes: validation, files, exit codes, records of the run.
WITHOUT_EFFECT = ("base", "tracking", "__init__.py")
# Of these a stage declares the parts that it reaches, files or packages in them, so that the edit of another part does
# not run it again.
IN_PART = {
    "split": ["dataset", "films"],
    "preprocess": ["dataset", "package"],
    "train": ["films", "metrics"],
}
_ITEM = "      - "


def is_code(dep: str) -> bool:
    """True for a dependency that is code, not data."""
    return dep.startswith(("src/", "stages/"))


def find_code_deps(root: Path, stage: str) -> list[str]:
    """The code that a stage reaches, as dvc.yaml declares it: packages, or parts of the packages in IN_PART."""
    deps = set()
    package = root / "src/pulmo"
    for file in reached_modules(root / "stages" / f"{stage}.py", package):
        room, *inner = file.relative_to(package).parts
        if room in WITHOUT_EFFECT or inner == ["__init__.py"]:
            continue
        if room == "sources":  # the code of one source concerns those alone who use it
            deps.add("sources/" + (inner[0] if inner[0] == "common" else "${data.source}"))
        else:
            deps.add(f"{room}/{inner[0]}" if room in IN_PART.get(stage, []) else room)
    return [f"stages/{stage}.py", *(f"src/pulmo/{dep}" for dep in sorted(deps, key=lambda dep: dep.replace("$", "~")))]


def read_code_deps(root: Path) -> dict[str, list[str]]:
    """The code that dvc.yaml declares for each stage."""
    stages = read_yaml(root / PIPELINE)["stages"]
    return {name: [dep for dep in stage.get("deps", []) if is_code(dep)] for name, stage in stages.items()}


def write_code_deps(root: Path) -> None:
    """Put the code that each stage reaches into dvc.yaml, and leave every other line as it is; UserError where a stage
    does not list its deps one a line."""
    file = root / PIPELINE
    lines = file.read_text(encoding="utf-8").splitlines()
    reached = {stage: find_code_deps(root, stage) for stage in read_code_deps(root)}
    for stage, deps in reached.items():
        try:
            begin = lines.index("    deps:", lines.index(f"  {stage}:")) + 1
        except ValueError:
            raise UserError(
                f"{file}: the deps of {stage} are not listed one a line",
                f"write `deps:` and below it `{_ITEM.strip()} stages/{stage}.py`",
            ) from None
        end = begin
        while end < len(lines) and lines[end].startswith(_ITEM):
            end += 1
        data = [line for line in lines[begin:end] if not is_code(line.removeprefix(_ITEM))]
        lines[begin:end] = [*(_ITEM + dep for dep in deps), *data]
    write_bytes(file, ("\n".join(lines) + "\n").encode())
