"""Runs the networks of a model set with ONNX Runtime."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnxruntime

from app.domain.values import Embeddings, FloatArray, PixelArray
from app.errors import CorruptModelSet, InvalidSettings

Device = Literal["cpu", "cuda", "auto"]

OUTPUTS = ["embedding", "features", "dense"]
UNIT_TOLERANCE = 1e-3  # of a length; half precision inside a network leaves about as much
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
ERRORS_ONLY = 3  # severity of ONNX Runtime's own log on stderr


class OnnxEmbedder:
    """An embedding network: input uint8 (n, side, side, 3) RGB with n free, outputs as in `Embeddings`, preprocessing inside."""

    def __init__(self, network: bytes, *, side_px: int, dim: int, threads: int = 1, device: Device = "cpu") -> None:
        """`threads` serve one call; several callers share one embedder. CorruptModelSet for any other network than was said."""
        self.side_px = side_px
        self._session = _open(network, threads=threads, device=device)
        self._input = _checked_input(self._session, side_px=side_px, dim=dim)

    @property
    def device(self) -> Device:
        """What it runs on, `cpu` or `cuda`."""
        return "cuda" if CUDA in self._session.get_providers() else "cpu"

    def __call__(self, pictures: PixelArray) -> Embeddings:
        # One by one: kernels may add up in another order in another batch, and a picture must have one embedding. On one CPU
        # thread a batch is no faster, and with one shape the memory arena stops growing.
        outputs = [self._session.run(OUTPUTS, {self._input: picture[np.newaxis]}) for picture in pictures]
        embedding, features, dense = (np.concatenate(output) for output in zip(*outputs, strict=True))
        _check_unit(embedding)
        return Embeddings(embedding=embedding, features=features, dense=dense)


def _open(network: bytes, *, threads: int, device: Device) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = ERRORS_ONLY
    # Threads that spin while they wait take the cores from other callers: 9 to 14 % fewer pictures a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [CPU] if device == "cpu" or CUDA not in onnxruntime.get_available_providers() else [CUDA, CPU]
    try:
        session = onnxruntime.InferenceSession(network, options, providers=providers)
    except Exception as error:  # its exceptions have no common base but this
        raise CorruptModelSet(f"ONNX Runtime cannot open the embedding network: {error}") from error
    # A provider that is listed may still fail to load its libraries, and then the session quietly runs on the CPU.
    if device == "cuda" and CUDA not in session.get_providers():
        raise InvalidSettings(["FIRSTSIGHT_DEVICE is cuda, but ONNX Runtime finds no usable CUDA device; use auto or cpu."])
    return session


def _checked_input(session: onnxruntime.InferenceSession, *, side_px: int, dim: int) -> str:
    """The name of the only input, if inputs and outputs are those of an embedding network."""
    inputs = [(entry.name, entry.type, entry.shape[1:]) for entry in session.get_inputs()]
    outputs = {entry.name: entry.shape for entry in session.get_outputs()}
    name = inputs[0][0]
    if inputs != [(name, "tensor(uint8)", [side_px, side_px, 3])] or not outputs.keys() >= {*OUTPUTS}:
        raise CorruptModelSet(
            f"The embedding network takes {inputs} and gives {list(outputs)}, not uint8 {[side_px, side_px, 3]} and {OUTPUTS}."
        )
    if outputs["embedding"][1:] != [dim]:
        raise CorruptModelSet(f"The embedding network gives embeddings of {outputs['embedding'][1:]}, not {[dim]}, numbers.")
    return str(name)


def _check_unit(embedding: FloatArray) -> None:
    lengths = np.linalg.norm(embedding, axis=1)  # (n,)
    if not np.all(np.abs(lengths - 1) < UNIT_TOLERANCE):  # NaN fails this too
        raise CorruptModelSet(f"The embedding network gave vectors of lengths {lengths.tolist()} instead of 1.")
