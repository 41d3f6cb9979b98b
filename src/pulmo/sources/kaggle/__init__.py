"""The dataset as Kaggle publishes it, fetched and cached by kagglehub."""

import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.films.rows.table import Listed
from pulmo.sources.common.hubs import Hub, by_disk, refusal
from pulmo.sources.common.layout import Placed, check_counts, find_films, list_folder

DATASET = "paultimothymooney/chest-xray-pneumonia"
COUNTS = {
    "train/NORMAL": 1341,
    "train/PNEUMONIA": 3875,
    "val/NORMAL": 8,
    "val/PNEUMONIA": 8,
    "test/NORMAL": 234,
    "test/PNEUMONIA": 390,
}


def fetch(raw: Path, handle: str) -> tuple[list[Listed], dict[str, str]]:
    """Fill the empty folder `raw` from Kaggle; the films and where they come from.

    The archive holds a second copy of every film and what macOS leaves behind; both stay out. Films are hard links into
    kagglehub's cache where the disk allows it. An interrupted download goes on where it stopped.
    """
    slug = handle.split("/versions/")[0]
    hub = Hub(
        name="Kaggle",
        dataset=handle,
        key="data.kaggle.handle",
        login="public datasets need no credentials: remove or renew KAGGLE_API_TOKEN or those in ~/.kaggle",
        by_hand=f"download the archive with a browser from kaggle.com/datasets/{slug}",
    )
    folder = _download(hub, handle)
    films = find_films(list_folder(folder, follow_links=True), str(folder))
    for film in tqdm(films, desc="place", unit="film", disable=None):
        _place(folder, film, raw)
    listed = [Listed(film.target, film.label, film.split) for film in films]
    if slug == DATASET:
        check_counts(listed, COUNTS, f"delete {folder} and run `dvc repro` again")
    version = folder.name if folder.parent.name == "versions" else ""
    return listed, {"source": "kaggle", "handle": handle, "version": version}


def _download(hub: Hub, handle: str) -> Path:
    import kagglehub
    from kagglehub.cache import get_cached_archive_path
    from kagglehub.config import get_kaggle_credentials
    from kagglehub.exceptions import DataCorruptionError
    from kagglehub.handle import parse_dataset_handle
    from requests.exceptions import RequestException

    archive = Path(get_cached_archive_path(parse_dataset_handle(handle)))
    try:
        get_kaggle_credentials()
    except ValueError as error:  # one line, which names the damaged file
        raise UserError(f"{hub.name}: {error}", hub.login) from error
    try:
        return Path(kagglehub.dataset_download(handle))
    except RequestException as error:
        raise refusal(hub, error) from error
    except (DataCorruptionError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        # kagglehub would take a whole but damaged archive in its cache for a finished download, for ever.
        for damaged in archive.parent.glob("*.archive"):
            damaged.unlink()
        raise UserError(
            f"Kaggle, dataset {handle}: what came is damaged or no archive and was deleted ({type(error).__name__})",
            f"run `dvc repro` again, or {by_disk(hub)}",
        ) from error


def _place(folder: Path, film: Placed, raw: Path) -> None:
    source, target = folder / film.name, raw / film.target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
