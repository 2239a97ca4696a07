"""The next image is near the threshold, unlike those before it, and from another group and place."""

import math

import numpy as np
import pytest

from serving.reviewing.order import distance_from_threshold, most_informative_first

NONE_SEEN = np.zeros((0, 2))


def order_of(p_values, latents=None, groups=None, places=None, *, seen=NONE_SEEN):
    count = len(p_values)
    latents = np.zeros((count, 2)) if latents is None else np.array(latents, float)
    return most_informative_first(
        p_values, latents, groups or [""] * count, places or [None] * count, rate=0.05, seen=np.array(seen, float)
    )


def test_the_distance_from_the_threshold_is_that_of_logarithms():
    assert distance_from_threshold([0.05, 0.5, 0.005], 0.05) == pytest.approx([0, math.log(10), math.log(10)])
    assert distance_from_threshold([math.nan], 0.05) > distance_from_threshold([1e-9], 0.05)


def test_images_nearer_to_the_threshold_come_first_from_both_sides():
    far_apart = [[100 * i, 0] for i in range(4)]
    seen = [[0, 1000], [100, 1000], [200, 1000], [300, 1000]]  # every image is equally new
    assert order_of([0.9, 0.06, 0.02, math.nan], far_apart, list("abcd"), list("wxyz"), seen=seen) == [1, 2, 0, 3]


def test_a_new_kind_comes_before_another_example_of_the_same():
    latents = [[0, 0], [0, 0.01], [0, 0.02], [9, 9]]
    assert order_of([0.05, 0.05, 0.05, 0.2], latents, seen=[[0, 1]])[:2] == [0, 3]


def test_what_was_decided_or_calibrated_with_is_not_new():
    latents = [[0, 0], [5, 5]]
    assert order_of([0.05, 0.05], latents, seen=[[0, 0.1]]) == [1, 0]
    assert order_of([0.05, 0.05], latents, seen=[[5, 5.1]]) == [0, 1]


def test_groups_and_places_alternate():
    latents = [[10 * i, 0] for i in range(6)]
    seen = [[10 * i, 1] for i in range(6)]
    groups = ["left", "left", "left", "right", "right", "right"]
    found = order_of([0.05] * 6, latents, groups, seen=seen)
    assert [groups[index] for index in found] == ["left", "right"] * 3
    places = [(0, 0), (0, 0), (0, 0), (2, 2), (1, 1), None]
    found = order_of([0.05] * 6, latents, None, places, seen=seen)
    assert {places[index] for index in found[:4]} == {(0, 0), (2, 2), (1, 1), None}


def test_the_order_is_that_of_the_definition_computed_one_by_one():
    random = np.random.default_rng(3)
    count, rate = 25, 0.03
    p_values, latents = random.uniform(1e-3, 1, count), random.standard_normal((count, 5))
    seen, groups = random.standard_normal((7, 5)), random.integers(0, 3, count).tolist()
    places = [(int(x), int(y)) for x, y in random.integers(0, 2, (count, 2))]
    typical = np.median([min(np.linalg.norm(one - other) for other in seen) for one in latents])
    expected: list[int] = []
    while len(expected) < count:

        def worth(i: int) -> float:
            distance = min(np.linalg.norm(latents[i] - other) for other in [*seen, *latents[expected]])
            g = sum(groups[i] == groups[j] for j in expected)
            r = sum(places[i] == places[j] for j in expected)
            return distance / (distance + typical) / (1 + abs(math.log(p_values[i] / rate))) / (1 + g) / (1 + r)

        expected.append(max((i for i in range(count) if i not in expected), key=worth))
    found = most_informative_first(p_values.tolist(), latents, groups, places, rate=rate, seen=seen)
    assert found == expected


def test_images_that_all_look_the_same_are_ordered_too():
    assert order_of([0.9, 0.05, 0.2], seen=[[0, 0]]) == [0, 1, 2]
    assert order_of([0.9, 0.05, 0.2])[0] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_are_ordered_too(count):
    assert order_of([0.5] * count) == list(range(count))
