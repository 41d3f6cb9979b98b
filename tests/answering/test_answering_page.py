"""The page, in a browser as people use it; skipped where there is no Chromium."""

import csv
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running_app import serving
from small_package import make_package

from pulmo import Predictor
from pulmo.answering.words import decision_text

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium); .ci/run installs it where it may"
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package", arch="resnet18")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Twelve gray films, one in colour, and a text."""
    folder = tmp_path_factory.mktemp("films")
    dice = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(dice.integers(0, 200 + number, (90, 120), dtype=np.uint8)).save(folder / f"film{number:02}.png")
    Image.fromarray(dice.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(folder / "holiday.png")
    (folder / "notes.txt").write_text("no film")
    return folder


@pytest.fixture(scope="module")
def address(package) -> Iterator[str]:
    with serving(package) as (host, port):
        yield f"http://{host}:{port}"


class Visit:
    """A page of a user of its own, and what it asked for and complained about."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def upload(self, *files: Path) -> None:
        self.page.set_input_files("#files", [str(file) for file in files])

    def wait(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=15_000)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def visit(browser, address) -> Iterator[Visit]:
    visit = Visit(browser, address)
    yield visit
    visit.context.close()
    assert visit.complaints == [], "the console stays empty"
    assert all(url.startswith((address, "data:", "blob:")) for url in visit.asked), "no other host is asked"


def test_a_film_is_answered_and_shown_under_its_heat_map(visit, package, films):
    visit.upload(films / "film00.png")
    visit.page.locator("#heat").wait_for(timeout=15_000)
    answer = Predictor.load(package).predict(films / "film00.png")
    head, _, rest = decision_text(answer).partition(": ")
    assert visit.texts("#decision") == [head]
    assert rest in visit.page.locator("#why").inner_text()
    assert "of 100 with pneumonia it finds 90 (80 to 95)" in visit.page.locator("#worth").inner_text()
    assert "small, version 7" in visit.page.locator("#spoke").inner_text()
    sizes = visit.page.evaluate("['picture', 'heat'].map(id => [$(id).naturalWidth, $(id).naturalHeight])")
    assert sizes == [[120, 90]] * 2
    slider = visit.page.get_by_label("Heat map")
    slider.focus()
    visit.page.keyboard.press("Home")
    assert visit.page.locator("#heat").evaluate("heat => getComputedStyle(heat).opacity") == "0"
    visit.page.keyboard.press("End")
    assert visit.page.locator("#heat").evaluate("heat => getComputedStyle(heat).opacity") == "1"
    assert visit.page.get_by_text("Not a medical device").is_visible()


def test_what_is_no_film_and_what_is_refused_say_why(visit, films):
    visit.upload(films / "notes.txt")
    visit.wait("not an image in JPEG")
    assert visit.texts("#decision") == ["No answer"]
    visit.upload(films / "holiday.png")
    visit.wait("A picture in colour.")
    assert visit.texts("#decision") == ["No chest film"]
    assert not visit.page.locator("#probability").inner_text()
    assert not visit.page.locator("#bar").is_visible()
    visit.page.get_by_role("button", name="Answer all the same").click()
    visit.page.locator("#heat").wait_for(timeout=15_000)
    assert visit.page.locator("#decision").inner_text().endswith("all the same")
    assert "on other films" in visit.page.locator("#worth").inner_text()
    assert visit.texts("#rows tr:last-child td:nth-child(2)")[0].endswith(", though refused")


def test_many_films_and_a_zip_fill_a_table_that_is_sorted_and_downloaded(visit, films, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for number in range(6, 12):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.write(films / f"film{number:02}.png", f"below/film{number:02}.png", kind)
        archive.write(films / "notes.txt", "notes.txt")
        archive.write(films / "holiday.png", ".hidden.png")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "more.zip").read_bytes()[:-60])
    visit.upload(*sorted(films.glob("film0[0-5].png")), tmp_path / "more.zip", tmp_path / "cut.zip")
    visit.wait("13 films done, 1 without an answer.")
    assert visit.texts("#rows td:first-child")[5:8] == ["film05.png", "below/film06.png", "below/film07.png"]
    head = visit.page.get_by_role("button", name="Probability")
    head.focus()
    visit.page.keyboard.press("Enter")
    shown = [float(text.rstrip("%")) for text in visit.texts("#rows td:nth-child(3)") if text]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 12
    assert visit.page.locator("th[data-key=probability]").get_attribute("aria-sort") == "descending"
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 13
    assert [float(row["prob_pneumonia"]) for row in rows[:12]] == sorted(
        (float(row["prob_pneumonia"]) for row in rows[:12]), reverse=True
    )
    assert rows[12]["error"] == "the zip is damaged or cut short"
    row = visit.page.get_by_role("button", name="below/film11.png")
    row.focus()
    visit.page.keyboard.press("Enter")
    visit.page.locator("#heat").wait_for(timeout=15_000)
    assert visit.page.evaluate("document.activeElement.id") == "decision", "a screen reader goes on at the answer"
    assert visit.texts("#name") == ["below/film11.png"]


def test_two_users_at_once_see_their_own_films(browser, address, films):
    visits = [Visit(browser, address) for _ in range(2)]
    for place, visit in enumerate(visits):
        visit.upload(*sorted(films.glob(f"film{place}*.png")))
    for visit, count in zip(visits, (10, 2), strict=True):
        visit.wait(f"{count} films done.")
        visit.context.close()
    assert [visit.complaints for visit in visits] == [[], []]


def test_a_phone_needs_no_sideways_scrolling_and_everything_has_a_name(browser, address, films):
    visit = Visit(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    visit.upload(*films.iterdir())
    visit.wait("14 films done, 1 without an answer, 1 refused.")
    visit.page.get_by_text("Model card: what is known of this model").click()
    assert visit.page.get_by_role("cell", name="0.900 (0.800 to 0.950)").count() == 2
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 26)"
    nameless = """[...document.querySelectorAll("button, input, img, th")].filter(one => one.checkVisibility()
        && !(one.innerText || one.alt || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"""
    assert visit.page.evaluate(nameless) == []
    visit.context.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_server_with_a_token_asks_for_it_and_goes_on(browser, package, films, tmp_path, packed):
    film = films / "film00.png"
    if packed:
        with zipfile.ZipFile(tmp_path / "films.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(film, film.name)
        film = tmp_path / "films.zip"
    with serving(package, token="secret") as (host, port):
        visit = Visit(browser, f"http://{host}:{port}")
        visit.upload(film)
        visit.wait("This server asks for a token")  # which the page does before it has opened an archive
        visit.page.locator("#decision", has_text="Waits for the token").wait_for(timeout=15_000)
        visit.page.get_by_role("textbox", name="Token").fill("secret")
        visit.page.keyboard.press("Enter")
        visit.page.locator("#heat").wait_for(timeout=15_000)
        visit.context.close()
