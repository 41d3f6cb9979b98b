"""Roboflow's re-split of the films as Hugging Face publishes it: three zips, fetched and cached by huggingface_hub."""

from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.films.archives import ArchiveError, list_members, unpack
from pulmo.films.rows.table import Listed
from pulmo.sources.common.hubs import Hub, refusal
from pulmo.sources.common.layout import check_counts, check_space, find_films

DATASET = "keremberke/chest-xray-classification"
COUNTS = {"train": 4077, "val": 1165, "test": 582}
ZIPS = {"train": "data/train.zip", "val": "data/valid.zip", "test": "data/test.zip"}


def fetch(raw: Path, repo: str, revision: str) -> tuple[list[Listed], dict[str, str]]:
    """Fill the empty folder `raw` from Hugging Face; the films and where they come from, the resolved commit with it.

    `revision` is a branch, a tag or a commit, shortened or not; all three zips are taken from the commit it stands for.
    """
    hub = Hub(
        name="Hugging Face",
        dataset=repo,
        key="data.huggingface.repo and data.huggingface.revision",
        login="run `hf auth login` or set HF_TOKEN, and accept the dataset's terms on its page if it has any",
        by_hand=f"unpack the three zips of huggingface.co/datasets/{repo} into train, valid and test of one folder",
    )
    listed: list[Listed] = []
    origin = {"source": "huggingface", "repo": repo, "revision": revision}
    commit = revision
    for split, name in ZIPS.items():
        archive = _download(hub, name, commit)
        commit = archive.parents[1].name  # <cache>/snapshots/<commit>/data/train.zip
        try:
            listed += _unpack(archive, split, raw)
        except ArchiveError as error:
            archive.resolve().unlink()  # the content itself; its name in the cache is a link to it
            raise UserError(
                f"{error.message}, and its copy in the cache was deleted", "run `dvc repro` again"
            ) from error
        origin |= {f"sha256 of {name}": sha256_file(archive)}
    if repo == DATASET:
        check_counts(listed, COUNTS, "correct data.huggingface.revision in params.yaml")
    return listed, origin | {"commit": commit}


def _download(hub: Hub, name: str, revision: str) -> Path:
    """The path of a repository's file in the client's cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, RevisionNotFoundError

    try:
        try:
            return Path(hf_hub_download(hub.dataset, name, repo_type="dataset", revision=revision))
        except RevisionNotFoundError:
            commit = _full_commit(hub.dataset, revision)
            return Path(hf_hub_download(hub.dataset, name, repo_type="dataset", revision=commit))
    except (HTTPError, RuntimeError) as error:
        raise refusal(hub, error) from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's trouble, not the network's
        raise refusal(hub, error) from error


def _full_commit(repo: str, short: str) -> str:
    """The commit whose hash begins with `short`, or `short` itself: not every hub expands short hashes."""
    from huggingface_hub import HfApi

    commits = [commit.commit_id for commit in HfApi().list_repo_commits(repo, repo_type="dataset")]
    return next((commit for commit in commits if commit.startswith(short)), short)


def _unpack(archive: Path, split: str, raw: Path) -> list[Listed]:
    entries = list_members(archive)
    films = find_films(entries, str(archive))
    paths = {film.name: f"{split}/{film.label}/{film.inner}" for film in films}
    check_space(raw, sum(entries[name].size for name in paths))
    unpack(archive, {name: raw / path for name, path in paths.items()})
    return [Listed(paths[film.name], film.label, split) for film in films]
