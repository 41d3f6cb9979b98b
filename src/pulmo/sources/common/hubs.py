"""The message to the user about a failed download from a hub: one line with the cause and the cure."""

from dataclasses import dataclass

from pulmo.base.errors import UserError


@dataclass(frozen=True)
class Hub:
    """A dataset on a hub, as its errors name it."""

    name: str  # of the hub
    dataset: str
    key: str  # key of params.yaml that names the dataset
    login: str  # what to do about credentials
    by_hand: str  # how to get the films onto the disk without this program


def refusal(hub: Hub, error: BaseException) -> UserError:
    """The error for a user; the HTTP status is taken from `error` or its cause, none means that no answer came."""
    responses = [getattr(link, "response", None) for link in (error, error.__cause__)]
    status = next((int(response.status_code) for response in responses if response is not None), None)
    subject = f"{hub.name}, dataset {hub.dataset}"
    if status in (401, 403):
        return UserError(f"{subject}: access refused (HTTP {status})", f"{hub.login}, or correct {hub.key}")
    if status == 404:
        return UserError(f"{subject}: not found (HTTP 404)", f"correct {hub.key} in params.yaml")
    if status == 429:
        return UserError(f"{subject}: too many requests (HTTP 429)", "run `dvc repro` again in some minutes")
    if status is not None:
        return UserError(
            f"{subject}: the hub failed (HTTP {status})", f"run `dvc repro` again later, or {by_disk(hub)}"
        )
    cause = type(error.__cause__ or error).__name__
    return UserError(
        f"{subject}: no connection, or it broke off ({cause})",
        f"run `dvc repro` again once the network is back, or {by_disk(hub)}",
    )


def by_disk(hub: Hub) -> str:
    """The hint on doing without the hub."""
    return f"{hub.by_hand}, then set data.source: folder and data.folder.path to it in params.yaml"
