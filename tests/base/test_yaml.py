"""YAML is read as DVC reads it, and what would harm is refused."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml
from small_project import ROOT

from pulmo.base.errors import UserError
from pulmo.base.yaml import MOST_BYTES, MOST_LEVELS, MOST_VALUES, read_yaml

SCALARS = ["010", "0o10", "0x1F", "089", "1_000", "+1", "-0", "1:30", "1:30:00", "1e-4", "1E5", "1.", ".5", "0.1_0"]
SCALARS += ["12e03", "1e400", ".inf", "-.INF", "yes", "No", "on", "off", "y", "true", "True", "~", "null", "", "1,000"]
SCALARS += ["0b11", "15439e1", "2026-1", "'010'", '"yes"', "[1, 010, yes]", "{yes: 010}", "|\n  yes\n"]


def read(text: str, folder: Path) -> object:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize("scalar", SCALARS)
def test_values_are_those_of_dvc(scalar, tmp_path):
    text = f"a: {scalar}\nb: {{c: {scalar if scalar[:1] not in '|' else 1}}}\n"
    ours, theirs = read(text, tmp_path), parse_yaml(text, "params.yaml")
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("scalar", "value"), [("010", 10), ("yes", "yes"), ("1:30", "1:30"), ("1e-4", 0.0001), ("1_000", 1000)]
)
def test_values_of_yaml_1_2(scalar, value, tmp_path):
    assert read(f"a: {scalar}", tmp_path) == {"a": value}


@pytest.mark.parametrize("file", [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")], ids=lambda file: file.stem)
def test_files_of_the_repository_are_read_as_dvc_reads_them(file):
    assert read_yaml(file) == parse_yaml(file.read_text(encoding="utf-8"), file)


def test_aliases_and_merged_mappings_are_read(tmp_path):
    text = "base: &base {lr: 0.1, epochs: 8}\ntrain: {<<: *base, lr: 0.2}\nother: *base\n"
    assert read(text, tmp_path) == parse_yaml(text, "params.yaml")


def laughs(levels: int, width: int) -> str:
    lines = ["l0: &l0 [ha]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD = {
    "key given twice": ("a: 1\nb: 2\na: 3", r"key 'a' is given twice in line 3, column 1"),
    "key given twice in a list of keys": ("x: {a: 1, a: 2}", r"key 'a' is given twice in line 1, column 11"),
    "key of two quotes given twice": ("'a\"b': 1\n'a\"b': 1", r"key 'a\"b' is given twice in line 2, column 1"),
    "date": ("a: 2026-01-31", r'2026-01-31 is a date in line 1, column 4\n\nhint: write "2026-01-31"'),
    "time": ("a: 2026-01-31 10:00:00", r"2026-01-31 10:00:00 is a date in line 1"),
    "no day of the calendar": ("a: 2026-99-99", r"2026-99-99 is a date in line 1"),
    "date as a key": ("2026-01-31: 1", r"2026-01-31 is a date in line 1"),
    "tag that runs code": (
        "a: !!python/object/apply:os.system [ls]",
        r"the tag !!python/object/apply:os\.system is not read in line 1",
    ),
    "tag of one's own": (
        "a: !film {b: 1}",
        r"the tag !film is not read in .*\n\nhint: write the value",
    ),
    "tag of bytes": ("a: !!binary aGk=", r"the tag !!binary is not read in line 1"),
    "alias of itself": ("a: &a [*a]", r"\*a stands for nothing, or for itself in line 1"),
    "alias of nothing": ("a: *b", r"\*b stands for nothing, or for itself in line 1"),
    "a billion laughs": (laughs(10, 10), rf"more than {MOST_VALUES:,} values, counting aliases, in line 5"),
    "laughs without end": (laughs(200, 2), rf"more than {MOST_VALUES:,} values"),
    "aliases nested 1,000 deep": (laughs(1000, 1), rf"more than {MOST_VALUES:,} values"),
    "10,000 empty lists": ("a: [" + "[], " * 10000 + "]", rf"more than {MOST_VALUES:,} values"),
    "5,000 brackets": ("a: " + "[" * 5000 + "]" * 5000, rf"nested over {MOST_LEVELS} deep in line 1"),
    "5,000 braces": ("a: " + "{a: " * 5000, rf"nested over {MOST_LEVELS} deep in line 1"),
    "5,000 dashes": ("- " * 5000, rf"nested over {MOST_LEVELS} deep in line 1"),
    "5,000 levels": ("\n".join(" " * i + f"k{i}:" for i in range(400)), rf"nested over {MOST_LEVELS} deep in line 21"),
    "number of 5,000 digits": ("a: " + "9" * 5000, r"a value is longer than 1,000 characters in line 1"),
    "long file": ("# " + "x" * MOST_BYTES, rf"params\.yaml is longer than {MOST_BYTES:,} bytes"),
    "10,000 values": ("a: [" + "1, " * 10000 + "]", rf"more than {MOST_VALUES:,} values"),
    "two documents": ("a: 1\n---\nb: 2", r"expected a single document .* in line 2, column 1"),
    "list as a key": ("{}: 1", r"unhashable key in line 1, column 1"),
    "control character": ("a: \x07", r"not valid YAML: unacceptable character #x0007"),
    "quote left open": ("a: 'b", r"not valid YAML: while scanning a quoted scalar, .* in line 1"),
    "merge of a number": ("a: {<<: 3}", r"expected a mapping .* in line 1"),
    "lone merge": ("a: <<", r"not valid YAML: could not determine a constructor"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_what_is_refused_is_one_message_at_once(text, message, tmp_path):
    started = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        read(text, tmp_path)
    assert time.process_time() - started < 1
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a billion laughs", "5,000 brackets", "10,000 values"])
def test_what_is_refused_takes_no_memory(name, tmp_path):
    (tmp_path / "params.yaml").write_text(BAD[name][0], encoding="utf-8")
    code = "from pathlib import Path; from pulmo.base.params_file import load_params; load_params(Path('params.yaml'))"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-3].startswith("pulmo.base.errors.UserError: params.yaml: ")
