"""Files of settings, read as DVC reads them (YAML 1.2 by ruamel.yaml), so that a stage never sees another value.

Refused in one message: keys given twice, dates, tags, and what would take memory or time without end.
"""

from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.nodes import Node, ScalarNode

from pulmo.base.errors import UserError

MOST_BYTES = 100_000  # thirty times params.yaml
MOST_VALUES = 5_000  # also lists and mappings; each alias counts as all that it stands for
MOST_LETTERS = 1_000  # of one value; also what keeps numbers short enough to print
MOST_LEVELS = 20


class _Refused(Exception):
    """A file that is YAML, but holds what settings do not need."""

    def __init__(self, message: str, mark: StreamMark, hint: str) -> None:
        super().__init__(message)
        self.message, self.mark, self.hint = message, mark, hint


def read_yaml(path: Path) -> dict[str, Any]:
    """The one mapping that the file holds; UserError that names file and line for everything else."""
    return parse_yaml(_read_text(path), path)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The one mapping that the text of a file holds, likewise."""
    try:
        _check_bounds(text)
        yaml = _make_parser()
        yaml.Constructor = _Constructor
        content = yaml.load(text)
    except _Refused as error:
        raise UserError(f"{path}: {error.message} {_place(error.mark)}", error.hint) from None
    except (YAMLError, ValueError) as error:  # ValueError: a number that Python cannot hold
        raise UserError(f"{path} is not valid YAML: {_explain(error)}", "correct the file with an editor") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one mapping", "write lines like `key: value`")
    return content


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path} not found", "run from the root of the project") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is longer than {MOST_BYTES:,} bytes", "name a file of settings")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text", "save it as UTF-8") from None


def _make_parser() -> YAML:
    return YAML(typ="safe", pure=True)  # pure: the parser in C tells no line, and may not be installed


def _check_bounds(text: str) -> None:
    """Raise _Refused at the first event that goes beyond the bounds, before anything is built from the text."""
    values = 0
    opened: list[tuple[str | None, int]] = []  # of each list and mapping around: its anchor, and the values before it
    sizes: dict[str | None, int] = {}  # by anchor
    for event in _make_parser().parse(text):
        mark = event.start_mark
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _Refused(f"the tag {tag} is not read", mark, "write the value alone, a text in quotes")
        if isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor] = values - before
        elif isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise _Refused(f"*{event.anchor} stands for nothing, or for itself", mark, "write the value out")
            values += sizes[event.anchor]
        elif isinstance(event, ScalarEvent):
            values += 1
            sizes[event.anchor] = 1
            if len(event.value) > MOST_LETTERS:
                raise _Refused(f"a value is longer than {MOST_LETTERS:,} characters", mark, "shorten it")
        if len(opened) > MOST_LEVELS:
            raise _Refused(f"lists or mappings are nested over {MOST_LEVELS} deep", mark, "flatten them")
        if values > MOST_VALUES:
            raise _Refused(f"there are more than {MOST_VALUES:,} values, counting aliases,", mark, "remove some")


class _Constructor(SafeConstructor):
    """Makes Python values of what was parsed, but no dates."""

    def check_mapping_key(self, node: Node, key_node: Node, mapping: dict[Any, Any], key: Any, value: Any) -> bool:
        if key in mapping:
            raise _Refused(f"key {key!r} is given twice", key_node.start_mark, "remove one of them")
        return True

    def refuse_date(self, node: ScalarNode) -> NoReturn:
        raise _Refused(f"{node.value} is a date", node.start_mark, f'write "{node.value}" if a text is meant')


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", _Constructor.refuse_date)


def _explain(error: YAMLError | ValueError) -> str:
    """One line that says what is wrong and where."""
    if not isinstance(error, MarkedYAMLError):
        return " ".join(str(error).split())
    problem = ", ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark or error.context_mark
    return f"{problem} {_place(mark)}" if mark else problem


def _place(mark: StreamMark) -> str:
    return f"in line {mark.line + 1}, column {mark.column + 1}"
