"""`params.yaml` read and validated as a whole before any work, and files like it; every mistake names key and cure."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pulmo.base.errors import UserError
from pulmo.base.params import Params
from pulmo.base.paths import project_root

Kind = TypeVar("Kind", bound=BaseModel)
_MOST_SHOWN = 200  # characters of a wrong value in a message


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate params.yaml; anything wrong is a UserError that names the key and the cure."""
    cure = "copy it from the params.yaml of the repository"
    try:
        params = read_section(path, Params, cure)
    except UserError as error:
        if not (os.environ.get("DVC_EXP_NAME") and path.parent.resolve() == project_root()):
            raise
        # `dvc exp run -S` leaves what it set, unless it runs in a temporary copy
        taken_back = f"`git checkout {path}` takes back what -S set"
        raise UserError(error.message, f"{error.hint}; {taken_back}" if error.hint else taken_back) from None
    if missing := [f"key {key} is missing" for key in _left_to_defaults(params)]:
        raise UserError(f"{path}: " + "; ".join(missing), cure)
    return params


def read_section(path: Path, model: type[Kind], cure: str = "add it") -> Kind:
    """A YAML file as `model` tells it; UserError that names file and keys, with the `cure` for a missing one."""
    from pulmo.base.yaml import read_yaml  # whose library a server, which has settings of this kind, does without

    content = read_yaml(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [_explain(item, cure) for item in error.errors()]
        hints = dict.fromkeys(hint for _, hint in problems)
        raise UserError(f"{path}: " + "; ".join(message for message, _ in problems), "; ".join(hints)) from None


def _left_to_defaults(section: BaseModel) -> Iterator[str]:
    """Keys that the file leaves out; their defaults are for Python alone, so that the file shows every value."""
    for name in type(section).model_fields:
        if name not in section.model_fields_set:
            yield name
        elif isinstance(inner := getattr(section, name), BaseModel):
            yield from (f"{name}.{key}" for key in _left_to_defaults(inner))


def _explain(error: Any, cure: str) -> tuple[str, str]:
    """Message and hint; a validator here raises ValueError(message, hint)."""
    key = ".".join(str(part) for part in error["loc"])
    key = key if key.isprintable() else ascii(key)
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key}", "remove it or correct its spelling"
        case "missing":
            return f"key {key} is missing", cure
        case "value_error":
            message, hint = error["ctx"]["error"].args
            return message, hint
        case "model_type" if error["input"] is None:
            return f"section {key} is empty", "copy it from the params.yaml of the repository"
    value = repr(error["input"])
    value = value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}…"
    text = f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, got {value}"
    if isinstance(error["input"], str) and re.fullmatch(r"[-+\d.eE]+", error["input"]):
        return f"{text}, a text", "write the number without quotes, for example 0.0001"
    if error["type"] == "string_type" and isinstance(error["input"], int | float | None):
        return text, 'write texts like numbers in quotes, and "" for none'
    return text, "correct the value"


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} as {"train.lr": 1}, the names that DVC shows too."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
