"""ResNet v1 and v1.5 as PyTorch's world names it: convolution, batch norm, ReLU; ReLU after the sum.

He et al., "Deep Residual Learning for Image Recognition", 2015. Layer names are torchvision's, with the
activations, pads and sums named after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.models.spec import Family

if TYPE_CHECKING:
    import keras

    from resnet_edge.models.layers import LayerMaker
    from resnet_edge.models.spec import ModelSpec


def features(make: LayerMaker, image: keras.KerasTensor, spec: ModelSpec) -> keras.KerasTensor:
    """Everything before the head: (N, H, W, C) to (N, H / stride, W / stride, C')."""
    x = make.conv(image, "conv1", make.channels(spec.stem_filters), 3)
    x = make.relu(make.norm(x, "bn1"), "relu")
    for stage, units in enumerate(spec.units):
        for unit in range(units):
            x = _unit(
                make,
                x,
                f"layer{stage + 1}.{unit}",
                filters=make.channels(spec.stem_filters << stage),
                stride=2 if stage > 0 and unit == 0 else 1,
                spec=spec,
            )
    return x


def _unit(
    make: LayerMaker, x: keras.KerasTensor, name: str, *, filters: int, stride: int, spec: ModelSpec
) -> keras.KerasTensor:
    """One residual unit: relu(shortcut(x) + branch(x))."""
    y = make.conv(x, f"{name}.conv1", filters, 3, stride=stride)
    y = make.relu(make.norm(y, f"{name}.bn1"), f"{name}.relu1")
    y = make.conv(y, f"{name}.conv2", filters, 3, ends_branch=True)
    y = make.norm(y, f"{name}.bn2")
    if stride > 1 or x.shape[-1] != filters:
        x = make.conv(x, f"{name}.downsample.0", filters, 1, stride=stride)
        if spec.family is not Family.MLPERF_TINY:
            x = make.norm(x, f"{name}.downsample.1")
    return make.relu(make.add(x, y, f"{name}.add"), f"{name}.relu")
