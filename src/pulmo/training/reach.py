"""The code that a result depends on, found by following the imports in its source."""

from pathlib import Path

from pulmo.base.code import imported_names

_ROOT = Path(__file__).resolve().parents[__name__.count(".")]  # the folder that holds this package


def reached_code(module: str, root: Path = _ROOT) -> list[Path]:
    """Source files under `root` that `module` reaches through any chain of imports of its own package, sorted.

    The module's own file is among them, and so are the packages that hold a module, for their code runs first.
    """
    top = module.split(".")[0]
    files: set[Path] = set()
    waiting = {module}
    while waiting:
        parts = waiting.pop().split(".")
        for depth in range(1, len(parts) + 1):
            base = root.joinpath(*parts[:depth])
            for file in {base.with_suffix(".py"), base / "__init__.py"} - files:
                if file.is_file():
                    files.add(file)
                    waiting |= {name for name in imported_names(file) if name.split(".")[0] == top}
    return sorted(files)
