"""Sums that do not fit into 16 bits: which processors, and which weights."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_edge.converters import ConversionSettings
from resnet_edge.engines.cpu import saturating_uint8_kernels
from resnet_edge.inspection import onnx
from resnet_edge.inspection.onnx_saturation import pair_share, saturation
from resnet_edge.quantization.quantize import quantize_graph
from resnet_edge.quantization.recipes import RECIPES
from resnet_edge_converters.onnx import OnnxConverter
from tests.graph_builder import GraphBuilder, images
from tests.quantization.calibrated import observe

HASWELL = "processor\t: 0\nflags\t\t: fpu sse4_1 avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "saturating"),
    [
        (HASWELL, True),
        (HASWELL.replace("fma", "fma avx512f avx512bw"), True),
        (HASWELL.replace("fma", "fma avx512_vnni"), False),
        (HASWELL.replace("fma", "fma avx_vnni"), False),
        (HASWELL.replace("avx2", ""), False),
        (ARM, False),
        ("", False),
    ],
)
def test_processors(tmp_path, text, saturating):
    (tmp_path / "cpuinfo").write_text(text)
    assert saturating_uint8_kernels(tmp_path / "cpuinfo") is saturating


def test_another_operating_system_is_not_warned(tmp_path):
    assert not saturating_uint8_kernels(tmp_path / "none")


@pytest.mark.parametrize(
    "pair", [(127, 127), (64, 64), (64, 65), (-64, -65), (-64, -64), (127, -127), (0, 127)]
)
def test_a_pair_is_found_if_some_features_make_it_overflow(pair):
    sums = [a * pair[0] + b * pair[1] for a in (0, 255) for b in (0, 255)]
    overflows = max(sums) > 2**15 - 1 or min(sums) < -(2**15)
    assert pair_share(np.array([[*pair, 1]], np.int8)) == (0.5 if overflows else 0.0)


def written(tmp_path, **attributes):
    builder = GraphBuilder((8, 8, 4))
    graph = builder.graph(builder.conv(builder.image, 6, **attributes))
    quantized = quantize_graph(graph, RECIPES["int8"], observe(graph, images(graph, 4)))
    OnnxConverter().convert(graph, tmp_path / "a.onnx", ConversionSettings(), quantized)
    return tmp_path / "a.onnx", quantized


def test_neighbours_are_channels(tmp_path):
    path, quantized = written(tmp_path)
    (weight,) = (array for name, array in quantized.constants.items() if name.endswith("/weight"))
    # In the graph (height, width, in, out).
    pairs = weight.astype(int).transpose(3, 0, 1, 2).reshape(-1, 2)
    same_sign = np.sign(pairs[:, 0]) * np.sign(pairs[:, 1]) >= 0
    expected = np.mean(same_sign & (np.abs(pairs.sum(axis=1)) > 128))
    found = saturation(path)
    assert (found.operators, found.affected) == (1, 1)
    assert found.mac_share == pytest.approx(expected)
    assert 0 < expected < 1


def test_the_report_warns_where_it_happens(tmp_path, monkeypatch):
    path, _ = written(tmp_path)
    for saturating in (True, False):
        monkeypatch.setattr(onnx, "saturating_uint8_kernels", lambda found=saturating: found)
        assert any("no VNNI" in note for note in onnx.inspect_onnx(path).notes) is saturating
