"""Reads the project's own code: which modules import which, and which params a stage touches."""

import ast
from pathlib import Path

from pulmo.training.reach import imported_names

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "pulmo"


def module_file(dotted: str) -> Path | None:
    """The file behind a name like pulmo.sources.kaggle.fetch, or None for a name outside the package."""
    parts = dotted.split(".")
    if parts[0] != "pulmo":
        return None
    while len(parts) > 1:
        base = PACKAGE.joinpath(*parts[1:])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.exists():
                return file
        parts.pop()
    return None


def own_modules(file: Path) -> set[Path]:
    """Files of the package that a file imports directly."""
    return {found for name in imported_names(file) if (found := module_file(name)) and found != file}


def reached_modules(file: Path) -> set[Path]:
    """Files of the package that a file reaches through any chain of imports."""
    reached: set[Path] = set()
    waiting = [file]
    while waiting:
        for found in own_modules(waiting.pop()) - reached:
            reached.add(found)
            waiting.append(found)
    return reached


def params_read(file: Path) -> set[str]:
    """Params that a stage reads: `load_params(...).split` reads `split`, `params.train.seed` reads `train.seed`.

    A chain that ends in a whole section, or in a method call on it, counts as the section.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    bound: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            chain = _chain(node.value, bound)
            if chain is not None:
                bound[node.targets[0].id] = chain
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    read: set[tuple[str, ...]] = set()
    for node in ast.walk(tree):
        inner = isinstance(parents.get(node), ast.Attribute)
        assigned = isinstance(parents.get(node), ast.Assign)
        if isinstance(node, ast.Attribute | ast.Name) and not inner and not assigned and (chain := _chain(node, bound)):
            read.add(tuple(part for part in chain if part != "model_dump")[:2])
    return {".".join(part.rstrip("_") for part in chain) for chain in read}


def _chain(node: ast.AST, bound: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    if isinstance(node, ast.Call):
        return () if isinstance(node.func, ast.Name) and node.func.id == "load_params" else None
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute):
        chain = _chain(node.value, bound)
        return None if chain is None else (*chain, node.attr)
    return None
