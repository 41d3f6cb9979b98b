"""Files of model repositories on Hugging Face, fetched and cached by huggingface_hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.model.hubs.names import HubName
from pulmo.model.hubs.pretrained import WeightsNotAtHand

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # safetensors first: nothing in it is unpickled


def fetch_file(weights: HubName, repository: str, names: Sequence[str]) -> Path:
    """The first of the files that the repository has, in the client's cache: <cache>/snapshots/<commit>/<name>.

    Raises WeightsNotAtHand where it has none, or where it is out of reach.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, HTTPError, RemoteEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=weights.revision or None))
        except RemoteEntryNotFoundError:
            continue
        except HFValidationError as error:
            raise UserError(
                f"train.weights: {weights} names no repository of Hugging Face", "write OWNER/NAME"
            ) from error
        except (HTTPError, OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's trouble, not the network's
            raise _refusal(weights, repository, error) from error
    raise WeightsNotAtHand(
        f"train.weights: {repository} on Hugging Face holds no {' or '.join(names)}", "name another repository"
    )


def commit_of(file: Path) -> str:
    """The commit of a file that `fetch_file` returned."""
    return file.parent.name


def describe_origin(pinned: HubName, repository: str, file: Path, licence: str = "") -> dict[str, str]:
    """The origin of weights in a file that `fetch_file` returned; `licence` where the repository states none."""
    return {
        "source": f"huggingface.co/{repository}",
        "revision": pinned.revision,
        "file": file.name,
        "sha256": sha256_file(file),
        "licence": _read_licence(pinned, repository) or licence,
    }


def _read_licence(weights: HubName, repository: str) -> str:
    """The licence that the repository's README states in its head; empty where it states none or is out of reach."""
    try:
        text = fetch_file(weights, repository, ("README.md",)).read_text(encoding="utf-8")
    except WeightsNotAtHand:
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    lines = re.findall(r"^(license|license_name):[ \t]*['\"]?([^'\"\n]*)", head[1], re.MULTILINE) if head else []
    stated: dict[str, str] = {key: value.strip() for key, value in lines}
    licence = stated.get("license", "")
    return stated.get("license_name", licence) if licence == "other" else licence


def _refusal(weights: HubName, repository: str, error: BaseException) -> WeightsNotAtHand:
    responses = [getattr(link, "response", None) for link in (error, error.__cause__)]
    status = next((int(response.status_code) for response in responses if response is not None), None)
    subject = f"train.weights: {weights} is not at hand"
    if status in (401, 403, 404):
        return WeightsNotAtHand(
            f"{subject}: Hugging Face shows no {repository} (HTTP {status})",
            f"correct its name or revision, or accept its terms on huggingface.co/{repository} and run `hf auth login`",
        )
    cause = f"HTTP {status}" if status else type(error.__cause__ or error).__name__
    return WeightsNotAtHand(
        f"{subject}: Hugging Face could not be reached ({cause})",
        f"run again once the network is back, or bring the cache of another machine ($HF_HOME), filled there by "
        f"`hf download {repository}`",
    )
