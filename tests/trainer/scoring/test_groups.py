"""The latent tells the variants of a product apart."""

import numpy as np
import pytest

from pipeline.configuration.configuration import Configuration
from trainer.scoring.groups import Groups
from trainer.scoring.learners import ScoreError

LEFT, RIGHT = (np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32) + shift for shift in (-5, 5))


def test_images_without_a_group_do_not_take_part():
    """With labels, no label is one like any other."""
    latents, names = np.concatenate([LEFT, RIGHT, RIGHT]), ["a"] * 20 + ["b"] * 20 + [""] * 20
    assert Groups(latents, names, by="group").names == ["a", "b"]
    assert Groups(latents, names, by="label").names == ["", "a", "b"]


def test_new_images_are_recognised():
    groups = Groups(np.concatenate([LEFT, RIGHT]), ["a"] * 20 + ["b"] * 20, by="group")
    assert [groups.names[number] for number in groups(np.array([[-6, -6, -6], [4, 6, 5]], np.float32)).numpy()] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([""] * 20, "no training image has a group: name each image's variant in the manifest's column `group`"),
        (["a"] * 10 + [""] * 10, "all training images have the group 'a'"),
        (["a"] * 19 + ["b"], "one training image of 'b'"),
    ],
)
def test_two_groups_with_two_images_are_needed(names, message):
    with pytest.raises(ScoreError, match=message):
        Groups(LEFT, names, by="group")


def test_a_folder_has_no_column():
    configuration = {"name": "x", "evaluation": {"groups": "group"}}
    with pytest.raises(ValueError, match="evaluation.groups 'group' applies to the sources csv and tfrecord"):
        Configuration.model_validate({**configuration, "data": {"source": "folder", "path": "images"}})
    Configuration.model_validate({**configuration, "data": {"source": "csv", "path": "images.csv"}})
