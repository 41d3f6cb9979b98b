"""The one exception for mistakes of the user. Everything else that is raised is a bug and keeps its traceback."""

import errno
import sqlite3
from collections.abc import Iterator

_CURES = {
    **dict.fromkeys((errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), "correct the path"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "move the file that stands where a folder should be"),
    errno.ENOENT: "put it back, or correct the path",
}
_CHECK_DISK = "check free space and permissions, then run again"
_DISK = ("disk is full", "disk I/O error", "readonly database", "unable to open database")


class UserError(Exception):
    """Something that the user can put right. The message states one fact and names the file, film or key."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint  # an instruction that puts it right, without a full stop; empty where there is none

    def __str__(self) -> str:
        """The message, and below it, after an empty line, the hint."""
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


def known_mistake(error: Exception) -> UserError | None:
    """An error as a mistake that can be put right, also where a file, a disk or a database is at fault; None for a
    bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return UserError(f"{named}{error.strerror or error}", _CURES.get(error.errno or 0, _CHECK_DISK))
    return from_database(error)


def from_database(error: Exception) -> UserError | None:
    """SQLite's error about a full or unwritable disk, as a mistake that can be put right; None for any other error."""
    for cause in walk_causes(error):
        if isinstance(cause, sqlite3.OperationalError) and any(sign in str(cause) for sign in _DISK):
            return UserError(f"the database cannot be written: {cause}", _CHECK_DISK)
    return None


def walk_causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: MLflow and Optuna wrap those of a database in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
