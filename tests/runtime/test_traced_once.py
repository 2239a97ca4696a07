import numpy as np
import tensorflow as tf

from runtime.traced_once import traced_once


def doubling():
    """(the function, the shapes that it was traced for)."""
    traced = []

    def double(rows, extra):
        traced.append(rows.shape)
        return {"doubled": 2.0 * rows + extra["one"]}

    return traced_once(double), traced


def test_any_number_of_rows_and_any_graph_use_one_trace():
    double, traced = doubling()
    graphs = [
        tf.function(lambda rows: double(rows, {"one": tf.ones_like(rows)})["doubled"]),
        tf.function(lambda rows: double(rows, {"one": tf.ones_like(rows)})["doubled"] + 1.0),
    ]
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for count in (1, 2, 3):
        images = tf.constant(rows[:count])
        expected = 2.0 * rows[:count] + 1.0
        assert np.array_equal(double(images, {"one": tf.ones_like(images)})["doubled"], expected)
        assert np.array_equal(graphs[0](images), expected)
        assert np.array_equal(graphs[1](images), expected + 1.0)
    assert [shape.as_list() for shape in traced] == [[None, 2]]


def test_another_shape_or_type_of_rows_has_its_own_trace():
    double, traced = doubling()
    for rows in (tf.ones([2, 2]), tf.ones([2, 5]), tf.ones([2, 2], tf.float64)):
        assert np.array_equal(double(rows, {"one": tf.ones_like(rows)})["doubled"], 3.0 * np.ones(rows.shape))
    assert len(traced) == 3
