"""What a package's network is computed by."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from small_package import make_package, require_bf16

from pulmo.base.errors import UserError
from pulmo.package import sessions
from pulmo.package.inference import Network
from pulmo.package.storage import ONNX

FILMS = np.random.default_rng(0).integers(0, 256, (24, 64, 64), dtype=np.uint8)


def with_bf16(content) -> Network:
    require_bf16()
    return Network(content, threads=1, bf16=True)


def test_bf16_gives_what_fp32_gives_to_some_hundredths(tmp_path):
    file = make_package(tmp_path / "package", arch="resnet18") / ONNX
    exact, quick = Network(file), with_bf16(file)
    assert quick.outputs == exact.outputs
    expected, stages = exact.score_and_read(FILMS)
    logits, quick_stages = quick.score_and_read(FILMS)
    assert 0 < np.abs(logits - expected).max() < 0.1
    for one, other in zip(stages, quick_stages, strict=True):
        np.testing.assert_allclose(other, one, rtol=0.1, atol=0.05)


def test_bf16_answers_many_threads_at_once(tmp_path):
    network = with_bf16((make_package(tmp_path / "package") / ONNX).read_bytes())
    alone = [network.score(film[None])[0] for film in FILMS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda film: network.score(film[None])[0], FILMS))
    assert together == alone


def test_a_signal_finds_its_way_after_a_network_was_given_up(tmp_path):
    require_bf16()
    program = (
        "import os, signal, sys, threading\nimport numpy as np\nfrom pathlib import Path\n"
        "from pulmo.package.inference import Network\n"
        "held = [Network(Path(sys.argv[1]), bf16=True)]\nheld[0].score(np.zeros((8, 64, 64), np.uint8))\n"
        "thread = threading.Thread(target=held.clear)\nthread.start()\nthread.join()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('stopped'))\nos.kill(os.getpid(), signal.SIGINT)"
    )
    file = make_package(tmp_path / "package") / ONNX
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


def test_a_damaged_network_is_one_message_in_bf16_too():
    with pytest.raises(UserError, match=r"model.onnx of the package cannot be used"):
        with_bf16(b"no network")


def test_without_openvino_bf16_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sessions, "_open_core", sessions._open_core.__wrapped__)
    with pytest.raises(UserError, match="OpenVINO, which is not installed") as refused:
        Network(b"", bf16=True)
    assert "pulmo[openvino]" in refused.value.hint


def test_a_processor_without_bf16_is_named(monkeypatch):
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(sessions, "_open_core", lambda: core)
    with pytest.raises(UserError, match="does not compute in bf16"):
        Network(b"", bf16=True)
