"""YAML in tests, as DVC reads it."""

import io
from typing import Any

from ruamel.yaml import YAML


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def dump(value: Any) -> str:
    parser = YAML(typ="safe", pure=True)
    parser.default_flow_style = False
    file = io.StringIO()
    parser.dump(value, file)
    return file.getvalue()
