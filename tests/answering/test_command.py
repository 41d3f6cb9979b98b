import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_package import make_package
from small_project import PULMO
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering.gather import gather_films
from pulmo.answering.heatmap import lay_heat, scale_heat, spread_heat
from pulmo.base.errors import UserError
from pulmo.films import contents
from pulmo.images.gray import fit_picture


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A folder of three films, one of them in a folder below, one text and one hidden film."""
    folder = tmp_path_factory.mktemp("films")
    dice = np.random.default_rng(0)
    (folder / "below").mkdir()
    for name in ("b.png", "a.jpeg", "below/c.png", ".hidden.png"):
        Image.fromarray(dice.integers(0, 256, (40, 60), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no film")
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


def ask(package: Path, *arguments: object, code: int = 0, given: bytes | None = None):
    command = ["predict", "--package", str(package), *(str(argument) for argument in arguments)]
    done = CliRunner().invoke(cli.app, command, input=given)
    assert done.exit_code == code, done.output
    return done


def rows_of(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def names_of(done) -> list[str]:
    return [row["film"] for row in rows_of(done)]


def test_folders_patterns_and_files_are_answered_once_each(package, films, monkeypatch):
    monkeypatch.chdir(films)
    assert names_of(ask(package, "--json", ".")) == ["a.jpeg", "b.png", "below/c.png"]
    named = ask(package, "--json", "b.png", films / "b.png", "below/../b.png", "*.png", "**/*.png", "below")
    assert names_of(named) == ["b.png", "below/c.png"]
    expected = Predictor.load(package).predict([films / "b.png", films / "below/c.png"])
    assert [row["prob_pneumonia"] for row in rows_of(named)] == [answer.prob_pneumonia for answer in expected]
    assert rows_of(named)[0]["model"]["sha256"] == expected[0].model.sha256


def test_archives_and_standard_input_are_read(package, films, tmp_path):
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for name in ("a.jpeg", "below/c.png", "notes.txt"):
            archive.write(films / name, name)
    with tarfile.open(tmp_path / "films.tar.gz", "w:gz") as archive:
        archive.add(films / "b.png", "b.png")
    done = ask(package, "--json", tmp_path / "films.zip", tmp_path / "films.tar.gz", tmp_path / "films.zip")
    places = [name.removeprefix(str(tmp_path)) for name in names_of(done)]
    assert places == ["/films.zip:a.jpeg", "/films.zip:below/c.png", "/films.tar.gz:b.png"]
    piped = rows_of(ask(package, "--json", "-", "-", given=(films / "b.png").read_bytes()))
    assert [row["film"] for row in piped] == ["-"]
    assert piped[0]["prob_pneumonia"] == rows_of(done)[2]["prob_pneumonia"]


def test_what_cannot_be_read_is_a_line_and_a_row_and_the_others_are_answered(package, films, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no film")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    named = (tmp_path / "broken.png", films / "b.png", tmp_path / "none.png", tmp_path / "cut.zip")
    done = ask(package, "--csv", *named, code=1)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["label"] != "" for row in rows] == [False, True, False, False]
    for row, reason in zip(rows, ("not an image", "", "not found", "damaged or cut short"), strict=True):
        assert reason in row["error"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert f"{tmp_path}/broken.png: not an image" in errors[0]
    assert [float(row["prob_pneumonia"]) >= float(row["threshold"]) for row in rows if row["label"]] == [
        rows[1]["label"] == "PNEUMONIA"
    ]


def test_names_behind_which_there_is_no_film_say_why(package, films, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/gone.png").symlink_to("nowhere.png")
    (tmp_path / "links/self.png").symlink_to("self.png")
    (tmp_path / "gone.zip").symlink_to("nowhere.zip")
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("notes.txt", "no film")
    named = (*(tmp_path / name for name in ("empty", "links", "gone.zip", "texts.zip")), films / "b.png")
    rows = rows_of(ask(package, "--json", *named, code=1))
    assert [(Path(row["film"]).name, row["error"]) for row in rows] == [
        ("empty", "the folder holds no film"),
        ("gone.png", "No such file or directory"),
        ("self.png", "Too many levels of symbolic links"),
        ("gone.zip", "No such file or directory"),
        ("texts.zip", "the archive holds no film"),
        ("b.png", None),
    ]


@contextmanager
def without_rights() -> Iterator[None]:
    """Be a user who may not open every file, where this one is root."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_opened_is_named(films):
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        closed = Path(scratch, "closed")
        closed.mkdir()
        shutil.copy(films / "a.jpeg", scratch)
        shutil.copy(films / "b.png", closed)
        closed.chmod(0)
        with without_rights():
            film, *others = gather_films([scratch, f"{closed}/b.png"])[0]
            assert film.read() == (Path(scratch) / "a.jpeg").read_bytes()
            assert [other.name for other in others] == [str(closed), f"{closed}/b.png"]
            for other in others:
                with pytest.raises(PermissionError):
                    other.read()
        closed.chmod(0o700)


def test_people_get_a_line_a_film_and_what_the_threshold_is_worth(package, films):
    lines = ask(package, films / "b.png", films / "a.jpeg").stdout.splitlines()
    assert len(lines) == 3
    assert all("prob_pneumonia 0." in line and "threshold 0.500" in line for line in lines[:2])
    assert lines[2].endswith("on the test films: sensitivity 0.900 (0.800–0.950), specificity 0.900 (0.800–0.950)")
    certain = make_package(package.parent / "unsure", locked=LOCKED_WIDE)
    assert "(unsure: leave it to a person)" in ask(certain, films / "b.png").stdout
    with pytest.raises(UserError, match="exclude each other"):
        CliRunner().invoke(cli.app, ["predict", "x", "--json", "--csv"], catch_exceptions=False)


LOCKED_WIDE = {
    "temperature": {"value": 0.5, "note": ""},
    "operating_point": {"policy": "fixed", "threshold": 0.5, "low": 0.4, "high": 0.6},
    "abstention": {"target_error": 0.02, "low": 0.0, "high": 1.0, "reached": False},
}


def test_many_films_come_in_their_order(package, films, tmp_path):
    for number in range(40):
        shutil.copy(films / ("a.jpeg" if number % 3 else "b.png"), tmp_path / f"{number:02}.png")
    rows = rows_of(ask(package, "--json", tmp_path))
    assert [Path(row["film"]).stem for row in rows] == [f"{number:02}" for number in range(40)]
    alone = {name: Predictor.load(package).predict(films / name).logit for name in ("a.jpeg", "b.png")}
    expected = [alone["a.jpeg" if number % 3 else "b.png"] for number in range(40)]
    assert [row["logit"] for row in rows] == pytest.approx(expected, abs=1e-5)


def test_a_heat_map_is_drawn_for_each_film(package, films, tmp_path):
    rows = rows_of(ask(package, "--json", "--heatmap", tmp_path / "heat", films / "b.png", films / "below"))
    for row, name in zip(rows, ("b", "c"), strict=True):
        assert Path(row["heatmap"]).name == f"{name}-heatmap.png"
        with Image.open(row["heatmap"]) as drawn, Image.open(row["film"]) as film:
            assert (drawn.size, drawn.mode) == (film.size, "RGB")
    (tmp_path / "b.png").write_bytes((films / "b.png").read_bytes())
    ask(package, "--heatmap", tmp_path / "more", films / "b.png", tmp_path / "b.png")
    assert {file.name for file in (tmp_path / "more").iterdir()} == {"b-heatmap.png", "b-2-heatmap.png"}


def test_a_heat_map_beside_its_film_leaves_the_film(package, films, tmp_path):
    film = Path(shutil.copy(films / "b.png", tmp_path))
    ask(package, "--heatmap", tmp_path, film)
    assert film.read_bytes() == (films / "b.png").read_bytes()
    assert (tmp_path / "b-heatmap.png").exists()


def test_a_network_without_heat_map_of_its_own_is_asked_with_places_covered(films, tmp_path):
    package = make_package(tmp_path / "package", size=32)  # so small that the last map has one place
    done = ask(package, "--json", "--heatmap", tmp_path / "heat", films)
    assert "squeezenet1_1 is asked 50 times a film" in done.stderr
    for row in rows_of(done):
        with Image.open(row["heatmap"]) as drawn, Image.open(row["film"]) as film:
            assert (drawn.size, drawn.mode) == (film.size, "RGB")
            assert len(drawn.getcolors(10_000)) > 256, "in colour somewhere"


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300), (250, 250)])
def test_a_bright_spot_is_hot_where_it_lies_on_the_film(fit, height, width):
    """The fitted film stands in for a feature map that lights up where the film is bright."""
    row, column = height // 2 + 40, width // 2 - 50
    film = np.zeros((height, width), np.uint8)
    film[row - 10 : row + 10, column - 10 : column + 10] = 255
    fitted = fit_picture(Image.fromarray(film), 96, fit).astype(np.float32)
    grid = fitted.reshape(16, 6, 16, 6).mean(axis=(1, 3))
    heat = spread_heat(scale_heat(grid, "PNEUMONIA"), width, height, 96, fit)
    assert heat.shape == film.shape
    weights = heat * (heat > 0.5)
    centre = [
        (weights.sum(axis=axis) * np.arange(side)).sum() / weights.sum() for axis, side in ((1, height), (0, width))
    ]
    assert np.abs(np.array(centre) - [row - 0.5, column - 0.5]).max() < 6
    drawn = lay_heat(film, heat).astype(int)
    assert drawn[row, column, 0] > drawn[row, column, 2] + 50, "coloured on the spot"
    assert np.array_equal(drawn[heat == 0], np.repeat(film[heat == 0][:, None], 3, axis=1)), "untouched elsewhere"


def test_heat_speaks_for_the_label():
    heat = np.array([[2.0, -4.0], [0.0, 1.0]], np.float32)
    assert scale_heat(heat, "PNEUMONIA").tolist() == [[1, 0], [0, 0.5]]
    assert scale_heat(heat, "NORMAL").tolist() == [[0, 1], [0, 0]]
    assert scale_heat(np.zeros((2, 2), np.float32), "NORMAL").tolist() == [[0, 0], [0, 0]]


def test_the_command_loads_nothing_heavy(package, films, tmp_path):
    code = "import sys; from pulmo.cli import main; sys.argv[0] = 'pulmo'\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", code, "predict", "--package", str(package), str(films / "b.png")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "prob_pneumonia" in done.stdout
    heavy = {"torch", "torchvision", "mlflow", "dvc", "pandas", "matplotlib", "cv2", "lightning", "scipy", "highdicom"}
    assert not heavy & loaded


def test_names_run_nothing_and_steer_no_terminal(package, films, tmp_path):
    names = ["=cmd.png", "-1.png", "a\x1b[2Jb.png", "two\nlines.png", os.fsdecode(b"not\xffunicode.png")]
    for name in names:
        shutil.copy(films / "b.png", tmp_path / name)
    command = [*PULMO, "predict", "--package", str(package)]
    for form in ([], ["--json"], ["--csv"]):
        done = subprocess.run([*command, *form, "--", *names], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stdout + done.stderr or form == ["--csv"]
        lines = done.stdout.decode().splitlines()
        if form == ["--csv"]:
            cells = [row["film"] for row in csv.DictReader(io.StringIO(done.stdout.decode()))]
            assert cells == ["'=cmd.png", "'-1.png", names[2], names[3], "not\\udcffunicode.png"]
        elif form == ["--json"]:
            assert [json.loads(line)["film"] for line in lines] == names
        else:
            assert len(lines) == len(names) + 1


def test_what_never_ends_or_is_larger_than_any_film_is_refused_at_once(package, films, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MOST_BYTES", 2**22)
    with (tmp_path / "sparse.png").open("wb") as sparse:
        sparse.truncate(2**43)
    with zipfile.ZipFile(tmp_path / "films.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(2**23))
    os.mkfifo(tmp_path / "pipe.png")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.png").write_bytes((films / "b.png").read_bytes()))
    writer.start()
    done = ask(package, tmp_path / "sparse.png", "/dev/zero", tmp_path / "films.zip", tmp_path / "pipe.png", code=1)
    writer.join()
    assert [line.partition(": ")[2] for line in done.stdout.splitlines() if "no answer" in line] == [
        *["the file holds more than 4 MB, which no film does"] * 3
    ]
    assert "pipe.png" in done.stdout.splitlines()[3]
    assert "prob_pneumonia" in done.stdout.splitlines()[3]


def test_folders_without_end_are_one_message(package, films, monkeypatch):
    def walk(*_, **__):
        raise RecursionError

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="its folders lie too deep in each other"):
        CliRunner().invoke(cli.app, ["predict", "--package", str(package), str(films)], catch_exceptions=False)


def test_matrices_are_multiplied_by_the_thread_that_scores(package, films):
    program = (
        "from pulmo.cli import app; from threadpoolctl import threadpool_info\n"
        f"app(['predict', '--package', {str(package)!r}, {str(films / 'b.png')!r}], standalone_mode=False)\n"
        "print([library['num_threads'] for library in threadpool_info() if 'numpy' in library['filepath']])"
    )
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.splitlines()[-1] == "[1]", done.stderr
