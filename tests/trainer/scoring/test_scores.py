"""Each score against NumPy, SciPy or scikit-learn on the same images, and as the served model computes it."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.spatial.distance import cosine
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from trainer.scoring.scores import SCORES, ScoreError, fit_score, fit_scores
from trainer.settings.calibration import CalibrationSettings, ScoreName

RANDOM = np.random.default_rng(5)


def batch(count):
    """Pixels and possible outputs of an autoencoder for them."""
    pixels = RANDOM.random((count, 16, 20, 3)).astype(np.float32)
    reconstruction = np.clip(pixels + RANDOM.normal(0, 0.1, pixels.shape), 0, 1).astype(np.float32)
    latent = RANDOM.normal(0, [1, 2, 3, 4], (count, 4)).astype(np.float32)
    return tf.constant(pixels), {"reconstruction": tf.constant(reconstruction), "latent": tf.constant(latent)}


TRAINING = [batch(30), batch(20)]
PIXELS, OUTPUTS = batch(10)
MAPS = np.mean((PIXELS.numpy() - OUTPUTS["reconstruction"].numpy()) ** 2, axis=-1)
TRAINING_MAPS = np.concatenate([np.mean((p - o["reconstruction"]).numpy() ** 2, axis=-1) for p, o in TRAINING])
TRAINING_LATENTS = np.concatenate([o["latent"].numpy() for _, o in TRAINING])


def scored(score, **settings):
    score = fit_score(score, CalibrationSettings(**settings), lambda: iter(TRAINING))
    return score(PIXELS, OUTPUTS).numpy()


def mean_of_worst(values, count):
    return np.sort(values.reshape(len(values), -1), axis=1)[:, -count:].mean(axis=1)


def test_the_configuration_offers_exactly_these_scores():
    assert set(ScoreName.__args__) == set(SCORES)


def test_error_is_the_mean_squared_error():
    assert scored(score="error") == pytest.approx(MAPS.mean(axis=(1, 2)), rel=1e-5)


def test_worst_pixels_is_the_mean_of_the_worst_share():
    assert scored(score="worst_pixels", worst_percent=5) == pytest.approx(mean_of_worst(MAPS, 16), rel=1e-5)
    assert scored(score="worst_pixels", worst_percent=0.01) == pytest.approx(MAPS.max(axis=(1, 2)), rel=1e-5)


def test_patch_max_is_the_largest_mean_of_a_patch_inside_the_image():
    means = np.stack([uniform_filter(one.astype(np.float64), 5)[2:-2, 2:-2] for one in MAPS])
    assert scored(score="patch_max", patch_px=5) == pytest.approx(means.max(axis=(1, 2)), rel=1e-4)


def test_local_ssim_of_all_windows_is_one_minus_ssim():
    ssim = tf.image.ssim(PIXELS, OUTPUTS["reconstruction"], 1.0, filter_size=7).numpy()
    assert scored(score="local_ssim", worst_percent=100) == pytest.approx(1 - ssim, rel=1e-4)
    assert np.all(scored(score="local_ssim", worst_percent=5) > 1 - ssim)


@pytest.mark.parametrize(("height_px", "width_px"), [(5, 9), (9, 5)])
def test_small_images_have_smaller_windows_and_patches(height_px, width_px):
    """SSIM by windows of 5 pixels; patches of 3."""
    pixels = PIXELS[:, :height_px, :width_px]
    outputs = {"reconstruction": OUTPUTS["reconstruction"][:, :height_px, :width_px]}
    ssim = tf.image.ssim(pixels, outputs["reconstruction"], 1.0, filter_size=5).numpy()
    score = fit_score("local_ssim", CalibrationSettings(worst_percent=100), lambda: iter([]))
    assert score(pixels, outputs).numpy() == pytest.approx(1 - ssim, rel=1e-4)


@pytest.mark.parametrize("turn", [False, True], ids=["wide", "tall"])
def test_a_patch_is_an_eighth_of_the_shorter_side(turn):
    errors = RANDOM.random((4, 32, 64, 1)).astype(np.float32)
    means = np.stack([uniform_filter(one.astype(np.float64) ** 2, 4)[2:-1, 2:-1] for one in errors[..., 0]])
    images = tf.constant(errors.transpose(0, 2, 1, 3) if turn else errors)
    score = fit_score("patch_max", CalibrationSettings(), lambda: iter([]))
    scores = score(images, {"reconstruction": tf.zeros_like(images)}).numpy()
    assert scores == pytest.approx(means.max(axis=(1, 2)), rel=1e-4)


def test_weighted_error_divides_by_the_usual_error():
    usual = TRAINING_MAPS.mean(axis=0)
    expected = (MAPS / (usual + usual.mean())).mean(axis=(1, 2))
    assert scored(score="weighted_error") == pytest.approx(expected, rel=1e-4)


def test_standardised_patch_is_each_position_s_deviation_from_its_usual_error():
    """Windows of 3 pixels; the worst 1 % of 14 x 18 positions are 3."""
    means, training = (
        np.stack([uniform_filter(one.astype(np.float64), 3)[1:-1, 1:-1] for one in maps])
        for maps in (MAPS, TRAINING_MAPS)
    )
    spread = training.std(axis=0)
    deviations = (means - training.mean(axis=0)) / (spread + spread.mean())
    assert scored("standardised_patch") == pytest.approx(mean_of_worst(deviations, 3), rel=1e-3)


def test_an_error_where_training_had_none_is_still_a_positive_score():
    perfect = (PIXELS, {"reconstruction": PIXELS})
    score = fit_score("weighted_error", CalibrationSettings(), lambda: iter([perfect]))
    assert score(PIXELS, OUTPUTS).numpy().min() > 0


def test_latent_distance_is_the_mahalanobis_distance():
    expected = LedoitWolf().fit(TRAINING_LATENTS).mahalanobis(OUTPUTS["latent"].numpy()) / 4
    assert scored(score="latent_distance") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("blur_px", "deviation_px"), [(1.5, 1.5), (None, 0.8), (0, 0)])
def test_blurred_images_are_compared_by_their_squared_difference_or_their_directions(blur_px, deviation_px):
    images, reconstructions = (
        gaussian_filter(one.numpy().astype(np.float64), (0, deviation_px, deviation_px, 0)).reshape(10, -1)
        for one in (PIXELS, OUTPUTS["reconstruction"])
    )
    errors = np.mean((images - reconstructions) ** 2, axis=1)
    assert scored(score="blurred_error", blur_px=blur_px) == pytest.approx(errors, rel=1e-3)
    distances = [cosine(*pair) for pair in zip(images, reconstructions, strict=True)]
    assert scored(score="cosine_distance", blur_px=blur_px) == pytest.approx(distances, rel=1e-3)


def test_cosine_distance_ignores_contrast_but_not_that_an_image_is_black():
    score = fit_score("cosine_distance", CalibrationSettings(), lambda: iter(TRAINING))
    black = tf.zeros_like(PIXELS)
    assert score(PIXELS, {"reconstruction": 0.5 * PIXELS}).numpy() == pytest.approx(0, abs=1e-5)
    assert score(black, {"reconstruction": black}).numpy() == pytest.approx(0)
    assert score(black, {"reconstruction": PIXELS}).numpy() == pytest.approx(1, abs=1e-2)


def test_the_extra_value_that_gives_a_black_image_a_direction_is_a_hundredth():
    """Of two images of two by two pixels, one black and one of 0.01, the cosine is 0.01 / |(0.01, ... 0.01)|."""
    score = fit_score("cosine_distance", CalibrationSettings(blur_px=0), lambda: iter([]))
    black = tf.zeros([1, 2, 2, 1])
    assert score(black, {"reconstruction": black + 0.01}).numpy() == pytest.approx([1 - 5**-0.5], rel=1e-5)


def neighbour_distances(bank, latents):
    metric = {"metric": "mahalanobis", "metric_params": {"VI": LedoitWolf().fit(bank).precision_}}
    return NearestNeighbors(n_neighbors=5, algorithm="brute", **metric).fit(bank).kneighbors(latents)[0].mean(axis=1)


def test_neighbour_distance_is_the_mean_mahalanobis_distance_to_the_five_nearest_training_latents():
    expected = neighbour_distances(TRAINING_LATENTS, OUTPUTS["latent"].numpy())
    assert scored(score="neighbour_distance") == pytest.approx(expected, rel=1e-3)


def test_the_bank_of_neighbours_is_bounded():
    many = (tf.zeros([5000, 4, 4, 1]), {"latent": tf.constant(RANDOM.normal(size=(5000, 3)).astype(np.float32))})
    fitted = fit_scores(["neighbour_distance"], CalibrationSettings(), lambda: iter([many]))["neighbour_distance"]
    assert fitted["bank"].shape == (2048, 3)


def test_ensemble_averages_logarithms_standardised_on_images_that_no_member_was_fitted_to():
    """In each batch (30 and 20 images) members are fitted to every other image and scales to the rest."""
    fitted_to = np.r_[0:30:2, 30:50:2]
    others = fitted_to + 1
    bank = TRAINING_LATENTS[fitted_to]
    members = {
        "error": (TRAINING_MAPS[others].mean(axis=(1, 2)), MAPS.mean(axis=(1, 2))),
        "worst_pixels": (mean_of_worst(TRAINING_MAPS[others], 10), mean_of_worst(MAPS, 10)),
        "neighbour_distance": [
            neighbour_distances(bank, latents) for latents in (TRAINING_LATENTS[others], OUTPUTS["latent"].numpy())
        ],
    }
    z = [(np.log(new) - np.log(seen).mean()) / np.log(seen).std() for seen, new in members.values()]
    expected = np.maximum(z, -3).mean(axis=0)
    assert scored(score="ensemble", score_members=list(members)) == pytest.approx(expected, abs=1e-3)


def test_any_other_image_scores_higher_if_all_training_images_score_the_same():
    same = [tf.repeat(value[:1], 20, axis=0) for value in (PIXELS, OUTPUTS["reconstruction"])]
    settings = CalibrationSettings(score="ensemble", score_members=["error", "worst_pixels"])
    score = fit_score("ensemble", settings, lambda: iter([(same[0], {"reconstruction": same[1]})]))
    worse = tf.clip_by_value(1.0 - PIXELS[:1], 0.0, 1.0)
    assert score(PIXELS[:1], {"reconstruction": worse}).numpy()[0] > 3


def test_a_low_member_cannot_hide_the_alarm_of_another():
    perfect = {**OUTPUTS, "reconstruction": PIXELS, "latent": OUTPUTS["latent"] + 100.0}
    settings = CalibrationSettings(score="ensemble", score_members=["error", "latent_distance"])
    score = fit_score("ensemble", settings, lambda: iter(TRAINING))
    assert score(PIXELS, perfect).numpy().min() > score(PIXELS, OUTPUTS).numpy().max()


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_the_same_after_saving_and_loading(name, tmp_path):
    score = fit_score(name, CalibrationSettings(), lambda: iter(TRAINING))
    assert not score.trainable_variables
    specs = {key: tf.TensorSpec([None, *value.shape[1:]]) for key, value in OUTPUTS.items()}
    image = tf.TensorSpec([None, *PIXELS.shape[1:]])
    module = tf.Module()
    module.score = score
    module.call = tf.function(lambda pixels, outputs: score(pixels, outputs), input_signature=[image, specs])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert loaded.call(PIXELS, OUTPUTS).numpy() == pytest.approx(score(PIXELS, OUTPUTS).numpy(), rel=1e-4, abs=1e-4)


def test_a_latent_too_large_for_a_covariance_is_an_error():
    wide = (PIXELS, {**OUTPUTS, "latent": tf.zeros([10, 5000])})
    with pytest.raises(ScoreError, match="the latent has 5000 numbers.*choose another score"):
        fit_score("latent_distance", CalibrationSettings(), lambda: iter([wide]))


@pytest.mark.parametrize("name", ["latent_distance", "neighbour_distance"])
def test_latents_that_are_not_finite_give_a_score_that_is_not(name):
    latent = OUTPUTS["latent"].numpy()
    latent[3, 1] = np.nan
    score = fit_score(name, CalibrationSettings(), lambda: iter([(PIXELS, {**OUTPUTS, "latent": tf.constant(latent)})]))
    assert np.isnan(score(PIXELS, OUTPUTS)).all()


@pytest.mark.parametrize(
    ("name", "aggregate"),
    [
        ("error", lambda maps: maps.mean(axis=(1, 2))),
        ("worst_pixels", lambda maps: mean_of_worst(maps, 10)),
        ("patch_max", lambda maps: maps.max(axis=(1, 2))),
        ("weighted_error", lambda maps: maps.mean(axis=(1, 2))),
        ("blurred_error", lambda maps: maps.mean(axis=(1, 2))),
        ("cosine_distance", lambda maps: maps.sum(axis=(1, 2))),
    ],
)
def test_a_score_is_an_aggregate_of_its_anomaly_map(name, aggregate):
    score = fit_score(name, CalibrationSettings(score=name), lambda: iter(TRAINING))
    maps = score.anomaly_map(PIXELS, OUTPUTS).numpy()
    assert maps.shape == (10, 16, 20)
    assert aggregate(maps) == pytest.approx(score(PIXELS, OUTPUTS).numpy(), rel=1e-3)


@pytest.mark.parametrize(("name", "window"), [("standardised_patch", 3), ("local_ssim", 7)])
def test_windows_are_shown_at_their_centres(name, window):
    """The map of windows inside the image, whose worst are the score, with its border repeated."""
    score = fit_score(name, CalibrationSettings(score=name), lambda: iter(TRAINING))
    maps, margin = score.anomaly_map(PIXELS, OUTPUTS).numpy(), window // 2
    inner = maps[:, margin:-margin, margin:-margin]
    worst = round(inner[0].size * (0.01 if name == "standardised_patch" else 0.03))
    assert mean_of_worst(inner, worst) == pytest.approx(score(PIXELS, OUTPUTS).numpy(), rel=1e-3)
    assert np.array_equal(maps, np.pad(inner, [(0, 0), (margin, margin), (margin, margin)], mode="edge"))


def test_a_score_without_a_map_shows_the_error():
    score = fit_score("latent_distance", CalibrationSettings(score="latent_distance"), lambda: iter(TRAINING))
    assert score.anomaly_map(PIXELS, OUTPUTS).numpy() == pytest.approx(MAPS, rel=1e-5)
