"""The models that have a name: one row each.

Parameter counts are proven by building (tests/models): each row names who published the figure.
"""

from __future__ import annotations

import difflib
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from resnet_edge.errors import UsageError
from resnet_edge.models.spec import Block, Family, Head, ModelSpec, Published, Shortcut

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the rows of a family share. The preprocessing is what its published weights were trained with.
_small = partial(ModelSpec, input_shape=(32, 32, 3), classes=10)
_large = partial(ModelSpec, input_shape=(224, 224, 3), classes=1000)
_mlperf_tiny = partial(_small, family=Family.MLPERF_TINY, head=Head.SOFTMAX, preprocessing="raw")
_cifar = partial(_small, family=Family.CIFAR, head=Head.LOGITS, preprocessing="torch", shortcut=Shortcut.PAD)
_cifar_v2 = partial(_small, family=Family.CIFAR_V2, head=Head.LOGITS, preprocessing="torch")
_torchvision = partial(_large, family=Family.TORCHVISION, head=Head.LOGITS, preprocessing="torch")
_timm = partial(_large, family=Family.TIMM, head=Head.LOGITS, preprocessing="torch")
_timm_v2 = partial(_large, family=Family.TIMM_V2, head=Head.LOGITS, preprocessing="tf")
_keras = partial(_large, family=Family.KERAS, head=Head.SOFTMAX, preprocessing="caffe")
_keras_v2 = partial(_large, family=Family.KERAS_V2, head=Head.SOFTMAX, preprocessing="tf")

_ROWS = (
    _mlperf_tiny(
        name="resnet8",
        block=Block.BASIC,
        units=(1, 1, 1),
        parameters=78_186,
        macs=12_501_632,
        published=Published(parameters=78_666, source="MLPerf Tiny", with_statistics=True),
        weights=("fashion-mnist",),
        weights_input_shape=(28, 28, 1),
    ),
    _cifar(
        name="resnet20",
        block=Block.BASIC,
        units=(3, 3, 3),
        parameters=269_722,
        macs=40_551_040,
        published=Published(parameters=270_000, source="He et al. 2015", rounded_to=10_000),
    ),
    _cifar(
        name="resnet32",
        block=Block.BASIC,
        units=(5, 5, 5),
        parameters=464_154,
        macs=68_862_592,
        published=Published(parameters=460_000, source="He et al. 2015", rounded_to=10_000),
    ),
    _cifar(
        name="resnet44",
        block=Block.BASIC,
        units=(7, 7, 7),
        parameters=658_586,
        macs=97_174_144,
        published=Published(parameters=660_000, source="He et al. 2015", rounded_to=10_000),
    ),
    _cifar(
        name="resnet56",
        block=Block.BASIC,
        units=(9, 9, 9),
        parameters=853_018,
        macs=125_485_696,
        published=Published(parameters=850_000, source="He et al. 2015", rounded_to=10_000),
    ),
    _cifar(
        name="resnet110",
        block=Block.BASIC,
        units=(18, 18, 18),
        parameters=1_727_962,
        macs=252_887_680,
        published=Published(parameters=1_700_000, source="He et al. 2015", rounded_to=100_000),
    ),
    _cifar_v2(
        name="resnet20v2",
        block=Block.BASIC,
        units=(3, 3, 3),
        parameters=272_282,
        macs=40_813_184,
        published=Published(parameters=272_282, source="imgclsmob"),
    ),
    _cifar_v2(
        name="resnet56v2",
        block=Block.BASIC,
        units=(9, 9, 9),
        parameters=855_578,
        macs=125_747_840,
        published=Published(parameters=855_578, source="imgclsmob"),
    ),
    _cifar_v2(
        name="resnet110v2",
        block=Block.BASIC,
        units=(18, 18, 18),
        parameters=1_730_522,
        macs=253_149_824,
        published=Published(parameters=1_730_522, source="imgclsmob"),
    ),
    _cifar_v2(
        name="resnet164v2",
        block=Block.BOTTLENECK,
        units=(18, 18, 18),
        parameters=1_703_258,
        macs=247_646_720,
        published=Published(parameters=1_703_258, source="imgclsmob"),
    ),
    _torchvision(
        name="resnet18",
        block=Block.BASIC,
        units=(2, 2, 2, 2),
        parameters=11_689_512,
        macs=1_814_073_344,
        published=Published(parameters=11_689_512, source="torchvision"),
    ),
    _torchvision(
        name="resnet34",
        block=Block.BASIC,
        units=(3, 4, 6, 3),
        parameters=21_797_672,
        macs=3_663_761_408,
        published=Published(parameters=21_797_672, source="torchvision"),
    ),
    _keras(
        name="resnet50",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=25_583_592,
        macs=3_857_973_248,
        published=Published(parameters=25_636_712, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
        stride_in_3x3=False,
    ),
    _keras(
        name="resnet101",
        block=Block.BOTTLENECK,
        units=(3, 4, 23, 3),
        parameters=44_601_832,
        macs=7_570_194_432,
        published=Published(parameters=44_707_176, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
        stride_in_3x3=False,
    ),
    _keras(
        name="resnet152",
        block=Block.BOTTLENECK,
        units=(3, 8, 36, 3),
        parameters=60_268_520,
        macs=11_282_415_616,
        published=Published(parameters=60_419_944, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
        stride_in_3x3=False,
    ),
    _torchvision(
        name="resnet50v1.5",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=25_557_032,
        macs=4_089_184_256,
        published=Published(parameters=25_557_032, source="torchvision"),
    ),
    _torchvision(
        name="resnet101v1.5",
        block=Block.BOTTLENECK,
        units=(3, 4, 23, 3),
        parameters=44_549_160,
        macs=7_801_405_440,
        published=Published(parameters=44_549_160, source="torchvision"),
    ),
    _torchvision(
        name="resnet152v1.5",
        block=Block.BOTTLENECK,
        units=(3, 8, 36, 3),
        parameters=60_192_808,
        macs=11_513_626_624,
        published=Published(parameters=60_192_808, source="torchvision"),
    ),
    _timm_v2(
        name="resnet18v2",
        block=Block.BASIC,
        units=(2, 2, 2, 2),
        parameters=11_687_720,
        macs=1_814_073_344,
        published=Published(parameters=11_690_000, source="timm", rounded_to=10_000),
    ),
    _timm_v2(
        name="resnet34v2",
        block=Block.BASIC,
        units=(3, 4, 6, 3),
        parameters=21_795_880,
        macs=3_663_761_408,
        published=Published(parameters=21_800_000, source="timm", rounded_to=10_000),
    ),
    _keras_v2(
        name="resnet50v2",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=25_568_360,
        macs=3_482_255_360,
        published=Published(parameters=25_613_800, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
    ),
    _keras_v2(
        name="resnet101v2",
        block=Block.BOTTLENECK,
        units=(3, 4, 23, 3),
        parameters=44_577_896,
        macs=7_194_476_544,
        published=Published(parameters=44_675_560, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
    ),
    _keras_v2(
        name="resnet152v2",
        block=Block.BOTTLENECK,
        units=(3, 8, 36, 3),
        parameters=60_236_904,
        macs=10_906_697_728,
        published=Published(parameters=60_380_648, source="keras.applications", with_statistics=True),
        weights=("imagenet",),
    ),
    _torchvision(
        name="wide_resnet50_2",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=68_883_240,
        macs=11_398_021_120,
        published=Published(parameters=68_883_240, source="torchvision"),
        branch_width=128,
    ),
    _torchvision(
        name="resnext50_32x4d",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=25_028_904,
        macs=4_230_479_872,
        published=Published(parameters=25_028_904, source="torchvision"),
        groups=32,
        branch_width=128,
    ),
    _timm(
        name="resnet50d",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=25_576_264,
        macs=4_328_824_832,
        published=Published(parameters=25_580_000, source="timm", rounded_to=10_000),
        deep_stem=True,
    ),
    _timm(
        name="seresnet50",
        block=Block.BOTTLENECK,
        units=(3, 4, 6, 3),
        parameters=28_088_024,
        macs=4_091_699_200,
        published=Published(parameters=28_090_000, source="timm", rounded_to=10_000),
        squeeze_excitation=True,
    ),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""Every registry model by name, in the order in which they are listed."""


def find_model(name: str) -> ModelSpec:
    """The row with this name.

    Raises:
        UsageError: There is none; the message has the nearest names.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5)
    raise UsageError(
        f"there is no model named {name!r}",
        where="MODEL",
        found=name,
        allowed=f"near: {', '.join(near)}" if near else "",
        next_step="`resnet-edge models` lists all names; a model of your own is given as a file",
    )
