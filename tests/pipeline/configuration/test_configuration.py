"""Mistakes in the configuration are reported immediately: file, field, value, and the closest valid key."""

import subprocess
import sys

import pytest
from repository import REPOSITORY

from pipeline.configuration.configuration import ConfigurationError
from pipeline.configuration.loading import load_configuration

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def load(tmp_path, text, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_configuration(path, overrides)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid_and_show_their_command(path):
    assert load_configuration(path).name
    first_line = path.read_text().splitlines()[0]
    assert any(command in first_line for command in ("autoencoder run", "autoencoder compile"))
    assert "# Expect" in path.read_text()


def test_a_preset_states_only_differences_and_a_field_overrides_it(tmp_path):
    assert load(tmp_path, "image: {height_px: 28, width_px: 28}\ntrainer: {preset: dense}").trainer.batch_size == 128
    assert load(tmp_path, "trainer: {preset: deep, batch_size: 7}").trainer.batch_size == 7


def test_overrides_win(tmp_path):
    text = "trainer: {preset: deep, latent_dim: 8}"
    configuration = load(
        tmp_path, text, "trainer.latent_dim=16", "data.normal_labels=['1']", "evaluation.thresholds=[]"
    )
    assert configuration.trainer.latent_dim == 16
    assert configuration.data.normal_labels == ("1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {latnt_dim: 3}", r"config\.yaml: unknown key 'trainer\.latnt_dim'; did you mean 'latent_dim'\?"),
        ("evaluation: {thresholds: [{metrc: ssim, max: 1}]}", r"unknown key 'evaluation\.thresholds\.0\.metrc'; did"),
        ("trainer: {preset: DENSE}", r"trainer\.preset: 'DENSE': must be one of .*; did you mean 'dense'\?"),
        ("trainer: {preset: dens}", r"trainer\.preset: 'dens': must be one of .*; did you mean 'dense'\?"),
        ("image: {height_px: 0}", r"image\.height_px: 0: must be greater than or equal to 4"),
        ("image: {channels: yes}", r"image\.channels: True: must be a number, but YAML reads yes, .* as booleans"),
        ("image: {height_px: on}", r"image\.height_px: True: must be a number"),
        ("trainer: {learning_rate: yes}", r"trainer\.learning_rate: True: must be a number"),
        ("trainer: {epochs: no}", r"trainer\.epochs: False: must be a number"),
        ("trainer: {preset: deep, hidden_units: [64, yes]}", r"trainer\.hidden_units: \[64, True\]: must be a number"),
        ("data: {drift: {limits: {contrast: yes}}}", r"data\.drift\.limits: {'contrast': True}: must be a number"),
        ("image: {roi: {box: [0, 0, yes, 1]}}", r"image\.roi\.box: \[0, 0, True, 1\]: must be a number"),
        ("evaluation: {thresholds: [{metric: ssim, min: yes}]}", r"thresholds\.0\.min: True: must be a number"),
        ("tuner: {search_space: {epochs: [yes, 2]}}", r"search_space\.epochs: True is not a valid value: must be a n"),
        ("tuner: {search_space: {epochs: {min: yes, max: 2}}}", r"epochs.*min: True: must be a number"),
        ("trainer: {epochs: many}", r"trainer\.epochs: 'many': .*integer"),
        ("trainer: {latent_dim: 64}", "latent_dim 64 is not smaller than the 64 values of an image"),
        ("trainer: {preset: dense, hidden_units: [9]}", "hidden_units does not apply to preset 'dense'"),
        ("trainer: {early_stopping_patience: 2, weight_averaging: 0.9}", "cannot be combined"),
        ("trainer: {epochs: 2, warmup_epochs: 2}", "warmup_epochs 2.0 must be less than trainer.epochs 2"),
        (
            "tuner: {search_space: {batch_size: [8, 0]}}",
            r"search_space\.batch_size: 0 is not a valid value",
        ),
        ("tuner: {search_space: {epoch: [1]}}", "no field 'epoch'; did you mean 'epochs'"),
        ("data: {source: folder}", "data.path is required for source 'folder'"),
        ("data: {eval_fraction: 0.6, test_fraction: 0.5}", "leave no images to train on"),
        ("evaluation: {thresholds: [{metric: ssim}]}", "has no bound; set min, max or max_regression"),
        ("evaluation: {thresholds: [{metric: kl, max_regression: 0.1}]}", "on kl cannot have max_regression"),
        ("evaluation: {score: local_sim}", r"evaluation\.score: 'local_sim'.*; did you mean 'local_ssim'\?"),
        ("evaluation: {score_members: [ensemble]}", "name one or more scores other than 'ensemble'"),
        ("evaluation: {thresholds: [{metric: ssim, min: 1, max: 0}]}", "no model can pass"),
        ("evaluation: {thresholds: [{metric: ssim, min: .nan}]}", r"thresholds\.0\.min: nan: .*finite"),
        ("evaluation: {max_pca_ratio: .inf}", r"max_pca_ratio: inf: .*finite"),
        ("data: {normal_labels: good}", r"data\.normal_labels: 'good': must be a list, such as \[good\]"),
        ("push: {destination: 's3://KEY:s3cr3t@bucket/x'}", "push.destination holds a password or key"),
        ("beam: {components: {Transform: [--s3_secret_access_key=s3cr3t]}}", "beam.components.Transform holds a pass"),
        ("name: 'Bad Name'", "name: 'Bad Name': must consist of lower-case letters"),
        ("", r"config\.yaml: is empty; write a configuration for your images with `autoencoder init FOLDER`"),
        ("# data: {source: folder}\n---\n", r"config\.yaml: is empty"),
        ("- a list", "must be a mapping of sections"),
        ("a: [", "is not valid YAML"),
        ("a: 2024-13-45", "is not valid YAML: month must be in 1..12"),
        ("[" * 10_000, "is not valid YAML"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message) as told:
        load(tmp_path, text)
    assert "s3cr3t" not in str(told.value)


def test_a_missing_file_suggests_a_file_with_a_similar_name():
    with pytest.raises(ConfigurationError, match=r"no such configuration file; did you mean 'mnist-dense\.yaml'\?"):
        load_configuration(REPOSITORY / "configs" / "mnist-dens.yaml")


def test_without_a_near_file_the_error_says_where_examples_are(tmp_path):
    with pytest.raises(ConfigurationError, match=r"digits\.yaml: no such configuration file; give your own .*configs/"):
        load_configuration(tmp_path / "configs" / "digits.yaml")


def test_a_malformed_override_is_quoted(tmp_path):
    with pytest.raises(ConfigurationError, match="--set epochs: must look like"):
        load(tmp_path, "name: a", "epochs")
    with pytest.raises(ConfigurationError, match="'2024-13-45' is not a valid YAML value"):
        load(tmp_path, "name: a", "trainer.epochs=2024-13-45")


@pytest.mark.parametrize(
    "label", ["007", "010", "1e3", "1_000", "0x1f", "no", "True", "2024-01-02", "12:30:45", "1.50", "~x"]
)
def test_labels_and_paths_are_text_as_typed(tmp_path, label):
    text = f"name: a\ndata: {{source: folder, path: {label}, normal_labels: [{label}, '{label}']}}"
    data = load(tmp_path, text).data
    assert (data.path, data.normal_labels) == (label, (label, label))
    overridden = load(tmp_path, text, f"data.normal_labels=[{label}]", f"data.path={label}").data
    assert (overridden.path, overridden.normal_labels) == (label, (label,))


@pytest.mark.parametrize("path", ["/data/batch #2", "a: b", "[1]", "{x}", "*all", "'quoted'", "- x", "!tag", " x "])
def test_an_override_of_text_is_taken_literally(tmp_path, path):
    assert load(tmp_path, "data: {source: folder, path: x}", f"data.path={path}").data.path == path


def test_an_override_can_unset_a_field_that_may_be_null(tmp_path):
    assert load(tmp_path, "push: {destination: x}", "push.destination=null").push.destination is None


def test_keys_are_text(tmp_path):
    variables = load(tmp_path, "kubeflow: {variables: {007: 010, on: off}}").kubeflow.variables
    assert variables == {"007": "010", "on": "off"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {}\nimage: {}\ndata: {source: digits}", "line 3: 'data' was already given in line 1; merge the two"),
        ("trainer:\n  epochs: 1\n  epochs: 2", "line 3: 'epochs' was already given in line 2"),
        ("trainer: {epochs: 1, epochs: 2}", "line 1: 'epochs' was already given in line 1"),
        ("trainer: {epochs: 010}", "line 1: 010 is 8 in YAML; write 8, or the number without a leading zero"),
        ("trainer: {epochs: 1:30}", "line 1: 1:30 is 90 in YAML"),
        ("image: {normalisation: off}", "image.normalisation: 'off': must be one of"),
    ],
)
def test_what_yaml_would_change_silently_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message):
        load(tmp_path, text)


def test_numbers_flags_and_merged_sections_are_still_yaml(tmp_path):
    pods = "{default: &a {cpu: 1.5, memory_gb: 2}, Trainer: {<<: *a, memory_gb: 8}}"
    text = f"kubeflow: {{pods: {pods}}}\ndata: {{follow_links: yes}}"
    configuration = load(tmp_path, text, "trainer.learning_rate=1e-3", "trainer.epochs=1")
    assert (configuration.kubeflow.pods["Trainer"].cpu, configuration.kubeflow.pods["Trainer"].memory_gb) == (1.5, 8)
    assert configuration.data.follow_links is True
    assert configuration.trainer.learning_rate == 0.001


def test_neither_help_nor_a_mistake_imports_tensorflow(tmp_path):
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom pipeline.cli import main\n"
        "print(CliRunner().invoke(main, ['run', '--help']).exit_code)\n"
        "print(CliRunner().invoke(main, ['run', '--set', 'trainer.epoch=1']).exit_code)\n"
        "print(sorted({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:3] == ["0", "2", "[]"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("{range: [0, 4095]}", "goes beyond the levels 0 to 255 of image.depth 8; set image.depth: 16"),
        ("{depth: 16, range: [7, 7]}", "must be full, [low, high] with low < high"),
        ("{depth: 16, range: wide}", "image.range 'wide' must be full, [low, high]"),
        ("{depth: 16, range: {percentiles: [1, 99.999]}}", "percentiles have at most two decimals"),
        ("{depth: 16, range: {percentiles: [-1, 99]}}", "range"),
        ("{depth: 12}", "image.depth: 12"),
        ("{page: all}", "image.page 'all' applies to the sources folder and csv, not to 'digits'; remove it"),
    ],
)
def test_what_no_image_can_be_read_with_is_refused(tmp_path, image, message):
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, f"image: {image}")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("full", "full"), ("[0, 4095]", (0, 4095)), ("{percentiles: [0.1, 99.9]}", {"percentiles": (0.1, 99.9)})],
)
def test_ranges(tmp_path, text, expected):
    image = load(tmp_path, "image: {depth: 16}", f"image.range={text}").image
    assert image.model_dump()["range"] == expected
    assert type(image).model_validate(image.model_dump(mode="json")) == image
