"""An embedding network made by hand: one strided convolution, its map averaged and normalised; made anew in each test."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 32
CELL_PX = 8
DIM = 6
CODE = 3


def tiny_network(*, side_px: int = SIDE_PX, input_type: int = TensorProto.UINT8, scale: float = 1.0) -> bytes:
    """ONNX bytes: uint8 (n, side, side, 3) -> embedding (n, 6), features (n, 6), dense (n, side / 8, side / 8, 6).

    `scale` is that of the embedding: anything but 1 makes a network that breaks its contract.
    """
    kernel = np.random.default_rng(0).normal(0, 0.001, (DIM, 3, CELL_PX, CELL_PX)).astype(np.float32)
    bias = np.ones(DIM, np.float32)  # a black picture has an embedding too
    cells = side_px // CELL_PX
    graph = helper.make_graph(
        nodes=[
            helper.make_node("Cast", ["picture"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["channels_first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels_first", "kernel", "bias"], ["map"], strides=[CELL_PX, CELL_PX]),
            helper.make_node("Transpose", ["map"], ["dense"], perm=[0, 2, 3, 1]),
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("LpNormalization", ["features"], ["unit"], axis=1, p=2),
            helper.make_node("Mul", ["unit", "scale"], ["embedding"]),
        ],
        name="tiny",
        inputs=[helper.make_tensor_value_info("picture", input_type, ["n", side_px, side_px, 3])],
        outputs=[
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIM]),
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", cells, cells, DIM]),
        ],
        initializer=[
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.float32(scale).reshape(1), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_decoder(*, dim: int = DIM, code: int = CODE, scale: float = 1.0) -> bytes:
    """ONNX bytes: shots (n, dim) and codes (m, code) -> made (n, m, dim): each shot a little further along each code's direction.

    `scale` is that of what is made: anything but 1 makes a decoder that breaks its contract.
    """
    directions = np.random.default_rng(1).normal(0, 0.5, (code, dim)).astype(np.float32)
    graph = helper.make_graph(
        nodes=[
            helper.make_node("MatMul", ["codes", "directions"], ["offsets"]),
            helper.make_node("Unsqueeze", ["shots", "middle"], ["each"]),
            helper.make_node("Add", ["each", "offsets"], ["sum"]),
            helper.make_node("LpNormalization", ["sum"], ["unit"], axis=-1, p=2),
            helper.make_node("Mul", ["unit", "scale"], ["made"]),
        ],
        name="tiny decoder",
        inputs=[
            helper.make_tensor_value_info("shots", TensorProto.FLOAT, ["n", dim]),
            helper.make_tensor_value_info("codes", TensorProto.FLOAT, ["m", code]),
        ],
        outputs=[helper.make_tensor_value_info("made", TensorProto.FLOAT, ["n", "m", dim])],
        initializer=[
            numpy_helper.from_array(directions, "directions"),
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
            numpy_helper.from_array(np.float32(scale).reshape(1), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
