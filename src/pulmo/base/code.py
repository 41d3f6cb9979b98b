"""The project's own source, read: what a file imports, and which files it reaches thereby."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def imported_names(file: Path) -> set[str]:
    """Dotted names of modules, and of what is taken from them, that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_modules(file: Path, package: Path = PACKAGE) -> set[Path]:
    """Files of the package, in its folder `package`, that a file imports directly."""
    modules = {_find_module(name, package) for name in imported_names(file)}
    return {path for path in modules if path and path != file}


def reached_modules(file: Path, package: Path = PACKAGE) -> set[Path]:
    """Files of the package that a file reaches through any chain of imports."""
    reached: set[Path] = set()
    waiting = [file]
    while waiting:
        for module in own_modules(waiting.pop(), package) - reached:
            reached.add(module)
            waiting.append(module)
    return reached


def reached_code(file: Path, package: Path = PACKAGE) -> list[Path]:
    """The code that runs with a file: itself, what it reaches, and the packages that hold these, sorted."""
    files = {file} | reached_modules(file, package)
    holding = {folder / "__init__.py" for path in files for folder in path.parents if folder.is_relative_to(package)}
    return sorted(files | {path for path in holding if path.is_file()})


def _find_module(dotted: str, package: Path) -> Path | None:
    """The file behind a name like pulmo.sources.kaggle.fetch, or None for a name outside the package."""
    parts = dotted.split(".")
    if parts[0] != package.name:
        return None
    while len(parts) > 1:
        base = package.joinpath(*parts[1:])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.exists():
                return file
        parts.pop()
    return None
