"""A configuration states only its differences from its base, and a mistake names the file to correct."""

from pathlib import Path

import pytest
from repository import REPOSITORY

from pipeline.configuration.configuration import ConfigurationError
from pipeline.configuration.loading import load_configuration, read_values

BASE = """
name: plant
data: {source: folder, path: images, normal_labels: [good]}
image: {height_px: 64, width_px: 48}
trainer: {preset: dense, epochs: 9}
kubeflow: {pods: {default: {cpu: 1}, Trainer: {cpu: 4, memory_gb: 8}}}
"""


@pytest.fixture
def write(tmp_path: Path):
    """Writes files below a folder, and returns the path of the last one."""

    def write_files(**texts: str) -> Path:
        path = tmp_path
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return path

    return write_files


def test_a_file_states_only_its_differences(write):
    cap = write(plant=BASE, products__cap="base: ../plant.yaml\nname: cap\ntrainer: {epochs: 3}")
    alone = write(alone=BASE.replace("name: plant", "name: cap").replace("epochs: 9", "epochs: 3"))
    assert load_configuration(cap) == load_configuration(alone)
    assert load_configuration(cap).trainer.epochs == 3
    assert load_configuration(cap).image.width_px == 48


def test_mappings_are_merged_and_lists_are_replaced(write):
    path = write(
        plant=BASE,
        cap="base: plant.yaml\ndata: {normal_labels: [ok]}\nkubeflow: {pods: {Trainer: {cpu: 8}}}",
    )
    configuration = load_configuration(path)
    assert configuration.data.normal_labels == ("ok",)
    assert configuration.kubeflow.pods["Trainer"].cpu == 8
    assert configuration.kubeflow.pods["Trainer"].memory_gb == 8
    assert configuration.kubeflow.pods["default"].cpu == 1


def test_bases_form_a_chain_in_which_the_nearest_file_wins(write):
    path = write(a="seed: 1\nname: a", b="base: a.yaml\nseed: 2\nroot: r", c="base: b.yaml\nseed: 3")
    configuration = load_configuration(path)
    assert (configuration.seed, configuration.root, configuration.name) == (3, "r", "a")


def test_the_command_line_overrides_bases_too(write):
    path = write(plant=BASE, cap="base: plant.yaml")
    assert load_configuration(path, ("trainer.epochs=2",)).trainer.epochs == 2


def test_the_merged_values_name_no_base(write):
    path = write(plant=BASE, cap="base: plant.yaml")
    assert "base" not in read_values(path)
    assert "base" not in load_configuration(path).model_dump()


def test_a_path_means_the_same_whichever_file_states_it(write):
    path = write(plant=BASE, products__cap="base: ../plant.yaml")
    assert load_configuration(path).data.path == "images"


@pytest.mark.parametrize(
    ("base", "own", "culprits"),
    [
        ("image: {height_px: 0}", "seed: 1", "plant"),
        ("seed: 1", "image: {height_px: 0}", "cap"),
        ("image: {height_px: 0}", "image: {width_px: 9}", "plant"),
        ("image: {height_px: 9}", "image: {height_px: 0}", "cap"),
        ("trainer: {epoch: 1}", "trainer: {epochs: 1}", "plant"),
        ("evaluation: {thresholds: [{metrc: ssim, max: 1}]}", "seed: 1", "plant"),
        ("trainer: {preset: dense, hidden_units: [9]}", "trainer: {epochs: 3}", "plant"),
        ("trainer: {early_stopping_patience: 2}", "trainer: {weight_averaging: 0.9}", "plant cap"),
        ("image: {height_px: 8, width_px: 8}", "trainer: {latent_dim: 64}", "plant cap"),
        ("data: {source: folder}", "seed: 1", "plant"),
        ("name: plant", "push: {destination: 's3://KEY:s3cr3t@bucket/x'}", "cap"),
    ],
)
def test_a_mistake_names_the_file_that_states_the_value(write, base, own, culprits):
    path = write(plant=base, cap=f"base: plant.yaml\n{own}")
    with pytest.raises(ConfigurationError) as raised:
        load_configuration(path)
    named = str(raised.value).partition(": ")[0]
    assert sorted(named.split(" and ")) == sorted(str(path.with_name(f"{name}.yaml")) for name in culprits.split())


def test_a_mistake_on_the_command_line_names_no_file(write):
    path = write(plant=BASE, cap="base: plant.yaml")
    with pytest.raises(ConfigurationError, match=r"^--set: image\.height_px: 0: must be"):
        load_configuration(path, ("image.height_px=0",))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"plant": BASE, "cap": "base: plnt.yaml"}, r"cap\.yaml: base plnt\.yaml: .*did you mean 'plant\.yaml'\?"),
        ({"cap": "base: [a.yaml]"}, r"cap\.yaml: base: .*: must be the path of one configuration file"),
        ({"cap": "base: cap.yaml"}, r"the bases form a circle"),
        ({"a": "base: cap.yaml", "cap": "base: a.yaml"}, r"circle \(.*cap\.yaml -> .*a\.yaml -> .*cap\.yaml\)"),
        ({"a": "x: [", "cap": "base: a.yaml"}, r"^\S*/a\.yaml: is not valid YAML"),
        ({"a": "- x", "cap": "base: a.yaml"}, r"^\S*/a\.yaml: must be a mapping of sections"),
        ({"cap": "base: ."}, r"cap\.yaml: base \.: .*cannot be read"),
    ],
)
def test_an_unusable_base_is_explained(write, files, message):
    with pytest.raises(ConfigurationError, match=message):
        load_configuration(write(**files))


def test_a_base_can_only_be_named_in_a_file(write):
    with pytest.raises(ConfigurationError, match="only a configuration file can name its base"):
        load_configuration(write(cap="seed: 1"), ("base=plant.yaml",))


def test_a_shipped_configuration_can_be_a_base(write):
    path = write(cap=f"base: {REPOSITORY / 'configs' / 'folder.yaml'}\nname: cap\ndata: {{path: caps}}")
    configuration = load_configuration(path)
    assert (configuration.trainer.preset, configuration.data.path) == ("features", "caps")
