"""Start and end of a stage: a mistake of the user is a message and a hint on stderr, a bug keeps its traceback."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil

from pulmo.base.errors import known_mistake

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names and numbers of glibc's malloc.h
_PROCESSOR = Path("/proc/cpuinfo")  # Linux alone has it
_SAME_START = 60  # seconds: the clock that start times are read from may have been set since


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; exit with 1 for bad input or a failing disk, 130 or 143 when told to stop.

    SIGTERM is raised as an exception, so that temporary files are removed and a tracked run ends as KILLED.
    """
    end_by_exception(signal.SIGTERM)
    keep_memory()
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if known := known_mistake(error):
            sys.exit(f"error: {known}")
        raise


def tell(text: str) -> None:
    """Write a line at once for whoever runs this program, beside what it answers."""
    print(text, file=sys.stderr, flush=True)


def computes_bf16_slowly() -> bool:
    """True on an Intel processor without AMX, whose AVX-512 takes longer for bf16 than for fp32."""
    facts = _PROCESSOR.read_text(encoding="utf-8", errors="replace") if _PROCESSOR.exists() else ""
    return "GenuineIntel" in facts and "amx_bf16" not in facts


def keep_memory() -> None:
    """Have this process keep freed memory for itself, where its C library is glibc. Else arrays above 32 MB, as a batch
    of 224 px makes them, come anew from the system at each step, and clearing their pages costs a fifth of it."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def release_memory() -> None:
    """Give the system what was freed and `keep_memory` holds back, for what follows takes its memory elsewhere."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def compute_alone() -> None:
    """Have NumPy, which is not to be imported yet, multiply matrices in the thread that asks: the threads of its
    library spin while they wait, and take a core from whoever has many small ones to multiply."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def usable_cores() -> int:
    """Cores that this process may use, which a container or a scheduler can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_by_exception(*numbers: int) -> None:
    """Have these signals raise SystemExit (128 + number) instead of ending the process, so that it cleans up. One that
    is ignored, as nohup ignores SIGHUP, stays ignored."""
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _exit)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def process_lives(pid: int, started: float | None = None) -> bool:
    """True where a process of this machine runs; with `started` (seconds since 1970), only the one that began then."""
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return not ended and (started is None or abs(process.create_time() - started) < _SAME_START)
    except psutil.NoSuchProcess:
        return False
