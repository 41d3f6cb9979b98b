"""Writes docs/bad-inputs.md: what each bad input of the test suite gets, as the code says it.

python tests/bad_inputs.py > docs/bad-inputs.md
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLES = {
    "params.yaml": (
        "test_params.py",
        "a_mistake or without_keys or pooling or fractions or renderings or no_mapping or no_file",
    ),
    "YAML": ("test_yaml.py", "at_once"),
    "archives": ("test_archives.py", "refused or too_many"),
    "folders": (
        "test_sources_folder.py",
        "cannot_be_told or no_source or broken_links or dvc_empties or without_end or larger_than",
    ),
    "CSVs of labels": ("test_sources_folder.py", "csvs_that or csv_that or split_folder"),
    "the film table": ("test_manifest.py", "no_film_table or bad_table"),
    "images": ("test_images.py", "not slow and not os_error and not unknown_fit"),
    "splits": ("test_splits.py", "bad_input or leak_is"),
    "model packages": ("test_package.py", "bad_package or not_finite"),
    "networks": ("test_inference.py", "bad_package"),
    "names": ("test_names.py", "no_name or nothing_can"),
    "the command line": ("test_cli.py", "empty_argument or folder_in_place"),
    "stages, with files spoiled and disks failing": ("test_stages.py", "clear_line"),
}


class Recorder:
    """Keeps the message of every exception that a test expects."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.test = ""

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.test = re.sub(r"^test_", "", item.name).replace("_", " ")

    def record(self, message: str) -> None:
        self.rows.append((self.test, message))


def collect(file: str, keyword: str) -> list[tuple[str, str]]:
    """(input, message) of every expected error in the tests of `file` that match `keyword`."""
    recorder = Recorder()
    leave = pytest.RaisesExc.__exit__

    def recording(self, kind, error, trace):
        if error is not None:
            recorder.record(str(getattr(error, "code", error)))
        return leave(self, kind, error, trace)

    pytest.RaisesExc.__exit__ = recording
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main(
                ["-q", "-p", "no:cacheprovider", str(next(HERE.rglob(file))), "-k", keyword], plugins=[recorder]
            )
    finally:
        pytest.RaisesExc.__exit__ = leave
    return recorder.rows


def tidy(text: str) -> str:
    """One table cell: no folder of this machine, no line break, no bar."""
    text = re.sub(r"(/[\w.\-]+)*/pytest-[\w\-]+/[\w\-]+/(popen-gw\d+/)?[\w\-]+\d+/", "", text)
    return re.sub(r"\s+", " ", text.replace(os.sep + "pytest", "")).replace("|", "\\|").strip()[:400]


def main() -> None:
    print("# What bad input gets\n\nEvery row is a test; `python tests/bad_inputs.py` writes this page.")
    for title, (file, keyword) in TABLES.items():
        rows = dict.fromkeys((tidy(test), tidy(message)) for test, message in collect(file, keyword))
        print(f"\n## {title}\n\n| input | answer |\n|---|---|")
        for test, message in rows:
            print(f"| {test} | {message} |")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
