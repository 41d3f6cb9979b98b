"""The engines that compute a package's network: ONNX Runtime in fp32, and OpenVINO in bf16."""

import threading
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores


class Session(Protocol):
    """A network that is ready to compute; safe to use from many threads."""

    inputs: list[str]
    outputs: list[str]

    def run(self, names: list[str], films: NDArray[np.float32]) -> list[Any]:
        """The outputs of these names for a batch of films (N, S, S)."""


class Fp32Session:
    """A session of ONNX Runtime."""

    def __init__(self, file: Path | bytes, threads: int) -> None:
        """`file`: model.onnx or its content. `threads` compute one call (0 = one per core)."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take half of each core, which decoding and other processes can use
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        content = str(file) if isinstance(file, Path) else file
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, names: list[str], films: NDArray[np.float32]) -> list[Any]:
        """The outputs of these names for a batch of films (N, S, S)."""
        outputs: list[Any] = self._session.run(names, {self.inputs[0]: films})
        return outputs


class Bf16Session:
    """A session of OpenVINO. Its log-odds lie some hundredths beside those of fp32."""

    def __init__(self, file: Path | bytes, threads: int) -> None:
        """As of `Fp32Session`. UserError where OpenVINO is not installed or the processor has no bf16."""
        core = _open_core()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UserError("this processor does not compute in bf16", "answer in fp32, which is what happens unasked")
        # With a thread for each call, as many calls as there are cores are computed side by side
        cores = usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": cores if threads == 1 else threads or cores,
            "NUM_STREAMS": cores if threads == 1 else 1,
            "ENABLE_CPU_PINNING": False,
        }
        model = core.read_model(file)
        self.inputs = [entry.get_any_name() for entry in model.inputs]  # once compiled, some have other names too
        self.outputs = [output.get_any_name() for output in model.outputs]
        self._model = core.compile_model(model, "CPU", settings)
        self._own = threading.local()

    def run(self, names: list[str], films: NDArray[np.float32]) -> list[Any]:
        """The outputs of these names for a batch of films (N, S, S)."""
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        self._own.request.infer({0: films})
        return [self._own.request.get_tensor(name).data.copy() for name in names]


@cache
def _open_core() -> Any:
    """OpenVINO's core, one for the life of this process: with its last core OpenVINO removes the stack on which threads
    that computed take their signals, and the next Ctrl-C would crash."""
    try:
        import openvino
    except ImportError:
        raise UserError("bf16 needs OpenVINO, which is not installed", "pip install 'pulmo[openvino]'") from None
    return openvino.Core()
