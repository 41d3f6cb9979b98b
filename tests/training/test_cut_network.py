"""Two nodes whose network is cut in the middle of a training, played by two network namespaces."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

NODES, DEVICE = {"pulmo-test-a": "10.211.55.1", "pulmo-test-b": "10.211.55.2"}, "pulmo-test"
LIMIT = 5  # seconds that a process waits for the other's answer


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes() -> Iterator[tuple[str, ...]]:
    """The names of two namespaces that see each other."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2; .ci/run has both where it may install programs")
    try:
        for name in NODES:
            ip("netns", "add", name)
        first, second = NODES
        ip("-n", first, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", second)
        for name, address in NODES.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", DEVICE)
            for link in (DEVICE, "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield tuple(NODES)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine gives root no network namespaces: {error.stderr.strip()}")
    finally:
        for name in NODES:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


def start(node: str, rank: int, folder: Path) -> subprocess.Popen[str]:
    """One of the two processes, as torchrun would start it on its node."""
    variables = {"RANK": str(rank), "GROUP_RANK": str(rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    variables |= {"WORLD_SIZE": "2", "MASTER_ADDR": next(iter(NODES.values())), "MASTER_PORT": "29500"}
    variables |= {"TORCHELASTIC_RUN_ID": "cut", "GLOO_SOCKET_IFNAME": DEVICE, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(folder), "cut", str(LIMIT)]
    command = ["ip", "netns", "exec", node, *program]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | variables, stdout=pipe, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_network_that_is_cut_ends_both_processes_with_a_message(nodes, tmp_path):
    history = tmp_path / "history.csv"
    processes = [start(node, rank, tmp_path) for rank, node in enumerate(nodes)]
    try:
        end = time.monotonic() + 120
        while not history.exists() or len(history.read_text().splitlines()) < 3:
            assert time.monotonic() < end
            assert all(process.poll() is None for process in processes), processes[0].communicate()[0][-3000:]
            time.sleep(0.1)
        ip("-n", nodes[0], "link", "set", DEVICE, "down")
        cut = time.monotonic()
        said = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert time.monotonic() - cut < LIMIT + 30
    assert [process.returncode for process in processes] == [1, 1]
    for text in said:
        assert "error: " in text
        assert f"another process of this training gave no answer within 0:00:0{LIMIT}" in text
        assert "the same command goes on after the last finished epoch" in text
    assert (tmp_path / "state.pt").exists()
