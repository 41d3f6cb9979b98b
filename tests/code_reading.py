"""Reads the project's own code for the params that a stage touches."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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
