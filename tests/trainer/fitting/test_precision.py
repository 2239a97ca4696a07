"""Mixed precision: chosen by the devices, as good as float32, and absent from the exported model."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.datasets import load_digits
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.fitting import precision
from trainer.fitting.fit import fit
from trainer.fitting.tracing import keep_autograph_out

keep_autograph_out()
UNIT = PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32))
ARITHMETIC_OF_THEIR_OWN = {
    "sparse": {},
    "contractive": {"hidden_units": [16]},
    "variational": {"hidden_units": [32]},
    "denoising": {"hidden_units": [32], "corruption": {"kind": "salt_and_pepper", "amount": 0.3}},
    "residual": {"filters": [8]},
}


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0), (8, 6)], "mixed_bfloat16"),
        ([(8, 0), (7, 5)], "mixed_float16"),
        ([(7, 0)], "mixed_float16"),
        ([(9, 0), (6, 1)], "float32"),
        ([None], "float32"),
        ([], "float32"),
    ],
)
def test_the_weakest_gpu_determines_the_policy(capabilities, policy, monkeypatch, caplog):
    details = [{} if capability is None else {"compute_capability": capability} for capability in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details[gpu])
    assert precision.mixed_policy() == policy
    assert ("training uses float32" in caplog.text) == (policy == "float32")


def train(preset, folder, **settings):
    """The model after two epochs, and its curve of held-out errors."""
    images = (load_digits().images[..., np.newaxis] / 16.0).astype(np.float32)
    sets = [ImageSet(len(part), (8, 8, 1), part) for part in (images[:1500], images[1500:])]
    config = {
        "trainer": {"preset": preset, "latent_dim": 8, "batch_size": 32, "epochs": 2, **settings},
        "image": {},
        "seed": 3,
        "data_fingerprint": "",
        "source_fingerprint": "",
    }
    autoencoder, history = fit(FnArgs(custom_config=config, model_run_dir=f"{folder}/model_run/1"), *sets, UNIT)
    return autoencoder, history["val_error"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("preset", ARITHMETIC_OF_THEIR_OWN)
def test_a_family_learns_as_much_in_16_bits_as_in_32(preset, policy, tmp_path, monkeypatch):
    if (preset, policy) == ("residual", "mixed_float16"):
        pytest.skip("TensorFlow's float16 convolutions take minutes on a CPU")
    settings = ARITHMETIC_OF_THEIR_OWN[preset]
    _, expected = train(preset, tmp_path / "float32", **settings)
    monkeypatch.setattr(precision, "mixed_policy", lambda: policy)
    autoencoder, errors = train(preset, tmp_path / "mixed", precision="mixed", **settings)
    assert errors != expected  # it did compute otherwise
    assert errors == pytest.approx(expected, rel=0.03)
    assert keras.mixed_precision.global_policy().name == "float32"
    layers = [autoencoder.model, *autoencoder.model._flatten_layers()]
    assert {layer.compute_dtype for layer in layers} == {"float32"}
