"""How a stage starts and ends: what a user can cause is one line on stderr, everything else keeps its traceback."""

import signal
import sys
from collections.abc import Callable
from types import FrameType


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; exit with 1 and one line for bad input or a failing disk, 130 or 143 when told to stop.

    SIGTERM is raised as an exception, so that temporary files are removed and a tracked run ends as KILLED.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {named}{error.strerror or error}; check free space and permissions, then run again")
    except KeyboardInterrupt:
        sys.exit(130)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
