"""The YAML file of a sweep: its budget, its pruning, and the space that is searched."""

import math
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pulmo.base.errors import UserError
from pulmo.base.names import NAME
from pulmo.base.params import Count, Positive, Section
from pulmo.base.params_file import flatten, read_section
from pulmo.base.yaml import read_yaml

KINDS = {  # of dimensions, and the values that each needs
    "float": "two numbers, the lower one first",
    "log": "two numbers above 0, the lower one first",
    "int": "two whole numbers, the lower one first",
    "choice": "two different values or more",
}


class PruneParams(Section):
    """The rule that stops a trial whose best AUROC is below the median of the others at that epoch."""

    after_trials: Count
    after_epochs: Count


class Sweep(Section):
    """A sweep as its YAML file tells it; every key is explained in sweeps/small.yaml."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    trials: Count = 0
    hours: Annotated[float, Field(ge=0)] = 0.0
    jobs: Positive = 1
    seed: Count = 0
    prune: PruneParams | None = None
    fixed: Annotated[dict[str, Any], Field(default_factory=dict)]
    space: Annotated[dict[str, dict[str, list[Any]]], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.trials and not self.hours:
            raise ValueError("trials and hours are both 0", "bound the sweep by one of them")
        for key, dimension in self.space.items():
            kind, values = next(iter(dimension.items()), ("", []))
            if len(dimension) != 1 or kind not in KINDS:
                raise ValueError(
                    f"space.{key} is of no known kind",
                    "write one of {float: [low, high]}, log, int, or {choice: [a, b]}",
                )
            if not _fits(kind, values):
                raise ValueError(f"space.{key}: got {values}", f"{kind} needs {KINDS[kind]}")
            if key in self.fixed:
                raise ValueError(f"space.{key} is in fixed too", "remove it there or here")
        return self


def _fits(kind: str, values: list[Any]) -> bool:
    """True where the values of a dimension are those that KINDS asks for."""
    if kind == "choice":
        return len(set(map(repr, values))) > 1
    types = (int,) if kind == "int" else (int, float)
    if len(values) != 2 or any(type(value) not in types for value in values):
        return False
    low, high = values
    return bool((0 if kind == "log" else -math.inf) < low < high < math.inf)


def read_sweep(file: Path, params: Path) -> Sweep:
    """Read a sweep and check its keys against params.yaml; UserError that names file and key."""
    sweep = read_section(file, Sweep)
    known = flatten(read_yaml(params))
    if unknown := [key for key in (*sweep.fixed, *sweep.space) if key not in known]:
        raise UserError(f"{file}: {unknown[0]} is no key of params.yaml", "write it as train.lr")
    return sweep
