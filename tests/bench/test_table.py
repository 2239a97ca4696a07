"""The benchmark's table and document, and its synthetic images."""

from bench.comparison import Comparison
from bench.images import write_synthetic_images
from bench.table import document_of, row_of
from components.sources.idx import read_idx


def test_the_ratio_compares_medians_and_may_equal_the_claim():
    comparison = Comparison("scaling", "four times", "linear", (2.0, 9.0, 3.0), (4.0, 2.0, 1.0), 1.5, items=600)
    assert comparison.ratio == 1.5
    assert comparison.holds
    assert row_of(comparison) == ("scaling", "four times", "3.0 s", "200", "linear", "2.0 s", "1.50", "<= 1.5", "yes")


def test_a_missed_claim_is_marked_in_the_table_and_the_document():
    comparison = Comparison("scaling", "memory", "a quarter", (1200.0,), (1000.0,), 1.1, unit="MB")
    assert row_of(comparison)[2:] == ("1,200 MB", "", "a quarter", "1,000 MB", "1.20", "<= 1.1", "NO")
    document = document_of([comparison], {"serving": "no model"}, size="small", repetitions=1)
    assert document["comparisons"][0]["holds"] is False
    assert document["failures"] == {"serving": "no model"}
    assert document["versions"]["apache-beam"]
    assert document["machine"]["cores"] > 0


def test_synthetic_images_have_the_requested_number_and_all_differ(tmp_path):
    write_synthetic_images(tmp_path, 7_000, seed=0)
    train = read_idx(str(tmp_path / "train-images-idx3-ubyte"), dimensions=3)
    test = read_idx(str(tmp_path / "t10k-images-idx3-ubyte"), dimensions=3)
    assert (train.shape, test.shape) == ((6_000, 28, 28), (1_000, 28, 28))
    assert len({picture.tobytes() for pictures in (train, test) for picture in pictures}) == 7_000


def test_a_difference_that_is_not_above_zero_was_not_measured():
    assert not Comparison("tiles", "memory", "floats", (-3.0,), (100.0,), 2.4, unit="MB").holds
    assert not Comparison("tiles", "memory", "floats", (0.0,), (100.0,), 2.4, unit="MB").holds
