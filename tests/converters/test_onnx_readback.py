"""What reading a quantized .onnx file back notices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resnet_edge.errors import ConversionFailedError, ModelRejectedError
from resnet_edge.quantization.readback import check
from resnet_edge_converters.onnx import OnnxConverter
from tests.converters.test_onnx_quantized import convert, quantized

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def ulp(array: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.nextafter(array, np.float32(np.inf)))


def one_more(array: NDArray[Any]) -> NDArray[Any]:
    changed = array.copy()
    changed.reshape(-1)[-1] += 1
    return changed


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("stem/output_scale", ulp, "scale of 'stem'"),
        ("image/output_scale", ulp, "scale of 'image'"),
        ("stem/output_zero_point", one_more, "zero point of 'stem'"),
        ("stem/scale", ulp, "scales of 'stem/weight'"),
        ("stem/bias_scale", ulp, "scales of 'stem/bias'"),
        ("dense/weight_int8", one_more, "values of 'dense/weight'"),
        ("stem/bias_int32", one_more, "values of 'stem/bias'"),
    ],
)
def test_reading_back_notices_any_change(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]], says: str, tmp_path: Path
) -> None:
    model = quantized("residual_block")
    path = convert(model, tmp_path)
    altered = onnx.load(path)
    (tensor,) = (tensor for tensor in altered.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    onnx.save(altered, path)
    with pytest.raises(ConversionFailedError, match=says):
        check(OnnxConverter().read_back(path, model), model, where=path.name)


def test_reading_back_notices_what_is_missing(tmp_path: Path) -> None:
    model = quantized("residual_block")
    path = convert(quantized("conv_relu"), tmp_path)
    with pytest.raises(ConversionFailedError, match="'stem' is missing"):
        check(OnnxConverter().read_back(path, model), model, where=path.name)


@pytest.mark.parametrize("what", ["zero_point", "metadata", "damage"])
def test_what_cannot_be_is_refused(what: str, tmp_path: Path) -> None:
    model = quantized("residual_block", io="uint8")
    path = convert(model, tmp_path)
    altered = onnx.load(path)
    if what == "zero_point":
        (tensor,) = (tensor for tensor in altered.graph.initializer if tensor.name == "stem/zero_point")
        tensor.CopyFrom(numpy_helper.from_array(np.ones(4, np.int8), tensor.name))
    elif what == "metadata":
        (entry,) = (entry for entry in altered.metadata_props if entry.key == "quantization")
        entry.value = json.dumps({"image": {"scale": 1.0, "zero_point": 0}})
    onnx.save(altered, path)
    if what == "damage":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelRejectedError):
        OnnxConverter().read_back(path, model)
