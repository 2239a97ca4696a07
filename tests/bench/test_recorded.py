"""The recorded results: what has become worse is named, and the page shows the recorded numbers."""

import pytest

from bench.memory import IMPORTS
from bench.recorded import (
    BEGIN,
    END,
    EXPORT_PAGE,
    EXPORT_RECORD,
    PAGE,
    RECORD,
    draw,
    export_page_with,
    merged,
    page_with,
    recorded,
    worse,
)


def row(what, ratio, area="serving", unit="s"):
    return {
        "area": area, "what": what, "reference": "direct calls", "ours_s": [ratio, 9.0, 0.1], "reference_s": [1.0],
        "max_ratio": 1.5, "unit": unit, "ratio": ratio, "holds": ratio <= 1.5,
    }  # fmt: skip


def document(*rows, size="full", cpu="fast"):
    machine = {"cpu": cpu, "cores": 2, "memory_gb": 8.0, "load": [0.1, 0.2, 0.3]}
    return {
        "size": size,
        "repetitions": 3,
        "machine": machine,
        "versions": {"tfx": "1.16.0"},
        "comparisons": list(rows),
    }


def test_a_ratio_that_is_more_than_15_percent_worse_is_named_with_both_machines():
    before = document(row("one client", 1.0), row("eight", 1.0), row("gone", 1.0), cpu="slow")
    lines = worse(document(row("one client", 1.14), row("eight", 1.16), row("new", 9.0)), before)
    assert lines[0] == "serving, eight: 1.16, recorded 1.00"
    assert [line.split(":")[0] for line in lines[1:]] == ["here", "recorded"]
    assert "fast" in lines[1]
    assert "slow" in lines[2]


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_nothing_is_named_if_nothing_is_worse_or_less_was_measured(size):
    ratio = 9.0 if size == "tiny" else 1.0
    assert worse(document(row("one client", ratio), size=size), document(row("one client", 1.0))) == []


def test_areas_that_were_not_measured_keep_their_results():
    before = document(row("one client", 1.0), row("--help", 4.0, area="startup"))
    after = merged(document(row("eight", 2.0)), before)
    assert [(r["area"], r["what"]) for r in after["comparisons"]] == [("serving", "eight"), ("startup", "--help")]


def test_the_table_replaces_what_stands_between_the_markers(tmp_path):
    results = document(row("one client", 1.6), row("memory", 1200.0, unit="MB"))
    page = page_with(f"before\n{BEGIN}stale\n{END}after\n", results)
    assert page.startswith(f"before\n{BEGIN}")
    assert page.endswith(f"\n{END}after\n")
    assert "stale" not in page
    assert "| serving | one client | 1.6 s | direct calls | 1.0 s | 1.60 | ≤ 1.5 | **no** |" in page
    assert page_with(page, results) == page
    draw(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_memory_of_components_is_a_table_of_its_own_with_a_column_for_each_run():
    def peak(what, mb):
        return {**row(what, mb / 700.0, unit="MB"), "ours_s": [mb], "reference_s": [700.0], "reference": IMPORTS}

    peaks = [peak("digits: Trainer", 800.0), peak("MNIST: Trainer", 1300.0), peak("MNIST: Pusher", 900.0)]
    page = page_with(f"{BEGIN}{END}", document(row("one client", 1.6), *peaks))
    assert "importing TFX and TensorFlow alone takes 700 MB" in page
    assert "| component | digits (≤ 1.5 × the imports) | MNIST (≤ 1.5 × the imports) |" in page
    assert "| Trainer | 800 MB | **1,300 MB** |" in page
    assert "| Pusher |  | 900 MB |" in page
    assert page.count("Trainer") == 1


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="restore both"):
        page_with("a page", document())


def test_the_documentation_shows_the_recorded_results():
    for record, file, page_of in ((RECORD, PAGE, page_with), (EXPORT_RECORD, EXPORT_PAGE, export_page_with)):
        page = file.read_text(encoding="utf-8")
        assert page_of(page, recorded(record)) == page
