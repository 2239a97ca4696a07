"""What each family adds to training, compared with NumPy, and its behaviour at inference and after export."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from scipy.integrate import trapezoid
from sklearn.datasets import load_digits

from trainer.families.contractive import squared_jacobian_norm
from trainer.families.denoising import Corruption
from trainer.families.registry import FAMILIES, build_autoencoder, compiles_faster
from trainer.families.sparse import kl_activity, l1_activity
from trainer.families.variational import kl_from_standard_normal
from trainer.fitting.tracing import keep_autograph_out
from trainer.scoring.losses import error_per_image, weighted_loss
from trainer.settings.image import ImageSettings
from trainer.settings.model import CorruptionSettings
from trainer.settings.trainer import TrainerSettings

keep_autograph_out()  # as in a run; several times faster
RANDOM = np.random.default_rng(5)
ODD = ImageSettings(height_px=29, width_px=23, channels=3)
SMALL = ImageSettings(height_px=8, width_px=8)
FULLY_CONNECTED = {preset: {"hidden_units": [32]} for preset in ("denoising", "super_resolution")}
"""Two of the presets that share a body are tested fully connected, the others convolutional."""


def build(image=SMALL, seed=0, **settings):
    keras.utils.set_random_seed(seed)
    return build_autoencoder(image, TrainerSettings.model_validate({"latent_dim": 5, **settings}))


def fit(autoencoder, images, epochs, **settings):
    settings = TrainerSettings.model_validate(settings)
    loss = weighted_loss(settings.loss)
    autoencoder.model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=lambda image, reconstruction: loss(image, reconstruction),
        jit_compile=compiles_faster(settings),
    )
    autoencoder.model.fit(images, images, batch_size=32, epochs=epochs, verbose=0)


def error_of(autoencoder, images):
    return float(tf.reduce_mean(error_per_image(images, autoencoder.model(images))))


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[..., np.newaxis] / 16.0).astype(np.float32)


@pytest.mark.parametrize("preset", FAMILIES)
def test_every_family_takes_any_image_size_and_survives_export(preset, tmp_path):
    body = {"variational": {"filters": [8]}, "residual": {"filters": [8]}, **FULLY_CONNECTED}.get(preset, {})
    autoencoder = build(ODD, preset=preset, **body)
    images = RANDOM.random((3, *ODD.shape), np.float32)
    reconstruction = autoencoder.model(images).numpy()
    assert reconstruction.shape == images.shape
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1
    assert np.array_equal(reconstruction, autoencoder.model(images)), "inference must not be random"
    assert np.array_equal(reconstruction, autoencoder.decoder(autoencoder.encoder(images)))

    exported = tf.Module()
    exported.models = (autoencoder.encoder, autoencoder.decoder, autoencoder.model)
    signatures = {
        "encode": (autoencoder.encoder, (None, *ODD.shape)),
        "decode": (autoencoder.decoder, (None, 5)),
        "reconstruct": (autoencoder.model, (None, *ODD.shape)),
    }
    for name, (function, shape) in signatures.items():
        setattr(exported, name, tf.function(function, input_signature=[tf.TensorSpec(shape)], autograph=False))
    tf.saved_model.save(exported, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert loaded.encode(images).shape == (3, 5)
    for again in (loaded.reconstruct(images), loaded.decode(loaded.encode(images))):
        assert again.numpy() == pytest.approx(reconstruction, abs=1e-5)


@pytest.mark.parametrize("preset", [name for name, family in FAMILIES.items() if not family.closed_form])
def test_every_family_learns(preset, digits):
    settings = {"preset": preset, "learning_rate": 0.003, **FULLY_CONNECTED.get(preset, {})}
    autoencoder = build(**settings)
    before = error_of(autoencoder, digits)
    fit(autoencoder, digits[:512], 4, **settings)
    assert error_of(autoencoder, digits) < 0.9 * before


@pytest.mark.parametrize("preset", ["variational", "contractive"])
def test_training_of_a_random_family_is_determined_by_the_seed(preset, digits):
    settings = {"preset": preset, "hidden_units": [16]}
    errors = []
    for seed in (1, 1, 2):
        autoencoder = build(seed=seed, **settings)
        fit(autoencoder, digits[:64], 2, **settings)
        errors.append(error_of(autoencoder, digits))
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)
    assert errors[0] != pytest.approx(errors[2], rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "denoising", "hidden_units": [16]},
        {"preset": "variational", "hidden_units": [16]},
        {"preset": "contractive", "hidden_units": []},
    ],
    ids=lambda settings: settings["preset"],
)
def test_random_states_are_restored_from_a_checkpoint(settings, digits, tmp_path):
    one, other = build(seed=1, **settings), build(seed=2, **settings)
    path = tf.train.Checkpoint(model=one.model).save(str(tmp_path / "at"))
    tf.train.Checkpoint(model=other.model).restore(path).assert_consumed()
    outcomes = [
        (a.model(digits[:8], training=True).numpy(), float(tf.add_n(a.model.losses or [0.0]))) for a in (one, other)
    ]
    assert np.array_equal(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1] == outcomes[1][1]


@pytest.mark.parametrize("kind", ["gaussian", "masking", "salt_and_pepper"])
def test_corruption_changes_its_share_of_pixels_in_training_only(kind):
    keras.utils.set_random_seed(3)
    corrupt = Corruption(CorruptionSettings(kind=kind, amount=0.3))
    images = RANDOM.uniform(0.3, 0.7, (40, 32, 32, 3)).astype(np.float32)
    images[0, 0, 0], images[0, 0, 1] = 0.2, 0.8  # salt on the brightest value would be no change of that channel
    assert np.array_equal(corrupt(images), images)
    corrupted = corrupt(images, training=True).numpy()
    changed = corrupted != images
    if kind == "gaussian":
        assert (corrupted - images).std() == pytest.approx(0.3, rel=0.02)
        assert (corrupted - images).mean() == pytest.approx(0.0, abs=0.01)
        return
    assert np.array_equal(changed.any(axis=-1), (corrupted != images).all(axis=-1)), "channels share a pixel's fate"
    assert changed.mean() == pytest.approx(0.3, abs=0.01)
    values = {"masking": [0.0], "salt_and_pepper": [images.min(), images.max()]}[kind]
    shares = [float((corrupted[changed] == value).mean()) for value in values]
    assert shares == pytest.approx([1 / len(values)] * len(values), abs=0.02)


@pytest.mark.parametrize(
    ("shape", "sides_px", "symmetries"), [((28, 28, 1), (4, 7, 14), 8), ((30, 21, 3), (3, 5, 10), 4)]
)
def test_patches_are_square_blocks_of_the_previous_image_mirrored_or_transposed(shape, sides_px, symmetries):
    keras.utils.set_random_seed(3)
    corrupt = Corruption(CorruptionSettings(kind="patches", amount=0.4))
    images = RANDOM.random((90, *shape), np.float32)
    assert np.array_equal(corrupt(images), images)
    corrupted = corrupt(images, training=True).numpy()
    replaced = (corrupted != images).any(axis=-1)
    assert replaced.mean() == pytest.approx(0.4, abs=0.03)
    sides, turns = set(), set()
    for index, mask in enumerate(replaced):
        sides |= {next(side for side in reversed(sides_px) if is_made_of_blocks(mask, side))}
        other = images[index - 1]
        turned = [
            view[:: 1 - 2 * up, :: 1 - 2 * left] for view in square_views(other) for up in (0, 1) for left in (0, 1)
        ]
        turns |= {n for n, view in enumerate(turned) if np.array_equal(view[mask], corrupted[index][mask])}
    assert sides == set(sides_px)
    assert turns == set(range(symmetries))


def is_made_of_blocks(mask, side_px):
    corners = mask[::side_px, ::side_px]
    return np.array_equal(np.kron(corners, np.ones((side_px, side_px), bool))[: mask.shape[0], : mask.shape[1]], mask)


def square_views(image):
    return [image, image.transpose(1, 0, 2)] if image.shape[0] == image.shape[1] else [image]


def test_the_target_of_denoising_is_the_clean_image(digits):
    """From pure noise the network can only learn the mean of the clean images."""
    settings = {"preset": "denoising", "hidden_units": [32], "corruption": {"amount": 1.0}}
    settings |= {"loss": "bce", "learning_rate": 0.01}
    autoencoder = build(**settings)
    fit(autoencoder, digits, 15, **settings)
    black = np.zeros((1, 8, 8, 1), np.float32)
    assert autoencoder.model(black).numpy()[0] == pytest.approx(digits.mean(axis=0), abs=0.05)


def test_the_contraction_penalty_matches_the_numeric_jacobian(digits):
    autoencoder = build(preset="contractive", hidden_units=[16])
    encoder = autoencoder.encoder
    weights = [weight.astype(np.float64) for weight in encoder.get_weights()]

    def encode(flat):
        return np.maximum(flat @ weights[0] + weights[1], 0) @ weights[2] + weights[3]

    images = digits[:4]
    step = 1e-6
    shifts = step * np.eye(64)
    expected = [
        sum(
            (((encode(image.ravel() + shift) - encode(image.ravel() - shift)) / (2 * step)) ** 2).sum()
            for shift in shifts
        )
        for image in images.astype(np.float64)
    ]
    basis = np.sqrt(5.0) * np.eye(5, dtype=np.float32)  # rows v with mean v v^T = I: the estimate is exact
    exact = np.mean([squared_jacobian_norm(encoder, tf.constant(images), row)[1] for row in basis], axis=0)
    assert exact == pytest.approx(expected, rel=1e-4)

    draws = []
    for _ in range(200):
        autoencoder.model(images, training=True)
        draws.append(float(autoencoder.model.losses[0]))
    assert np.mean(draws) == pytest.approx(0.1 / 64 * np.mean(expected), rel=0.1)
    autoencoder.model(images, training=False)
    assert autoencoder.model.losses == []


def test_contraction_makes_the_latent_less_sensitive(digits):
    norms = []
    for weight in (0.0, 1.0):
        settings = {"preset": "contractive", "hidden_units": [], "contraction": weight}
        autoencoder = build(**settings)
        fit(autoencoder, digits, 5, **settings)
        norms.append(np.linalg.norm(autoencoder.encoder.get_weights()[0]))
    assert norms[1] < 0.8 * norms[0]


def test_the_divergence_matches_a_numerical_integral():
    """The integral of q log(q / p) over each dimension, summed over independent dimensions."""
    mean, deviation = np.array([[0.7, -1.2]]), np.array([[0.5, 1.4]])
    grid = np.linspace(-12, 12, 200_001)
    expected = 0.0
    for m, s in zip(mean[0], deviation[0], strict=True):
        q = np.exp(-0.5 * ((grid - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
        log_ratio = -0.5 * ((grid - m) / s) ** 2 - np.log(s) + 0.5 * grid**2
        expected += trapezoid(q * log_ratio, grid)
    divergence = kl_from_standard_normal(tf.constant(mean), tf.constant(2 * np.log(deviation)))
    assert divergence.numpy() == pytest.approx([expected], rel=1e-6)


def test_a_variational_model_adds_its_divergence_per_value_and_samples_in_training_only(digits):
    autoencoder = build(preset="variational", hidden_units=[16], beta=3.0)
    images = digits[:4]
    log_variance_layer = keras.Model(autoencoder.model.input, autoencoder.model.get_layer("latent").output)
    mean, log_variance = np.split(log_variance_layer(images).numpy(), 2, axis=1)
    expected = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1).mean()
    assert np.array_equal(autoencoder.encoder(images), mean)
    assert not np.array_equal(autoencoder.model(images, training=True), autoencoder.model(images, training=True))
    assert [float(loss) for loss in autoencoder.model.losses] == pytest.approx([3.0 * expected / 64], rel=1e-5)


def test_activities_match_the_papers():
    latent = RANDOM.random((6, 4)).astype(np.float32)
    rate = latent.astype(np.float64).mean(axis=0)
    kl = (0.1 * np.log(0.1 / rate) + 0.9 * np.log(0.9 / (1 - rate))).sum()
    assert float(l1_activity(-latent)) == pytest.approx(latent.sum(axis=1).mean(), rel=1e-6)
    assert float(kl_activity(latent, 0.1)) == pytest.approx(kl, rel=1e-5)
    assert np.isfinite(float(kl_activity(np.zeros((2, 3), np.float32), 0.1)))


def test_sparse_leaves_more_of_the_latent_inactive_than_dense(digits):
    def latents(**settings):
        autoencoder = build(**settings, latent_dim=32)
        fit(autoencoder, digits, 15, **settings)
        return autoencoder.encoder(digits).numpy()

    dense, sparse = (float((latents(preset=preset) < 0.05).mean()) for preset in ("dense", "sparse"))
    assert sparse > dense + 0.1
    rate = latents(preset="sparse", sparsity={"kind": "kl", "target": 0.1, "weight": 5.0}, learning_rate=0.01).mean()
    assert rate == pytest.approx(0.1, abs=0.05)


def test_super_resolution_sees_only_the_shrunk_image():
    autoencoder = build(preset="super_resolution", hidden_units=[16], downscale=2)
    images = RANDOM.random((2, 8, 8, 1), np.float32)
    blocks = images.reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    assert autoencoder.model(images).numpy() == pytest.approx(autoencoder.model(blocks).numpy(), abs=1e-6)
