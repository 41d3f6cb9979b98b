"""The origin of a result, as the commands that make it again."""

import json
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pulmo.base.git import run_git
from pulmo.base.params_file import flatten
from pulmo.base.paths import PARAMS
from pulmo.base.yaml import parse_yaml
from pulmo.package.info import PackageInfo
from pulmo.reporting.card import Facts


def reproduce_command(checkout: Path, revision: str, params: Mapping[str, Any]) -> str:
    """The commands that bring back the commit and run the pipeline, with the params that differ from it, as far as its
    params.yaml knows them."""
    text = run_git(checkout, "show", f"{revision}:{PARAMS}")
    committed = flatten(parse_yaml(text, PARAMS)) if text else {}
    known = {name: value for name, value in flatten(params).items() if name in committed}
    changed = differing_params({name: committed[name] for name in known}, known)
    settings = "".join(f" -S {shlex.quote(f'{name}={value}')}" for name, (_, value) in changed.items())
    return f"git checkout {revision} && " + (f"dvc exp run{settings}" if settings else "dvc repro")


def gather_facts(
    checkout: Path, info: PackageInfo, params: Mapping[str, Any], resamples: int, experiment: str
) -> Facts:
    """The facts of the card of a model that is evaluated today, in this checkout, with these params."""
    command = reproduce_command(checkout, info.git_revision, params)
    return Facts(info.model_dump(mode="json"), resamples, command, experiment, f"{datetime.now():%Y-%m-%d}")


def differing_params(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Both values, as DVC's -S takes them, of every param that differs; a dash where one side does not have it."""
    a, b = (
        json.loads(json.dumps(flatten(params), default=str)) for params in (first, second)
    )  # tuples are lists there

    def show(values: Mapping[str, Any], name: str) -> str:
        value = values.get(name, "–")
        return value if isinstance(value, str) else json.dumps(value)

    return {name: (show(a, name), show(b, name)) for name in {**a, **b} if a.get(name) != b.get(name)}
