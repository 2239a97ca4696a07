"""The index of several products: one entry each, from their latest runs, for people and for the server."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.configuration.configuration import Configuration
from pipeline.local.product_index import models_beside, product_of, update_if_listed, write_indexes
from serving.server.model_config import ModelConfigError, read_model_config

THUMBNAIL = {"title": "worst", "score": "1.2", "outcome": "flagged", "original": "data:,a", "anomaly_map": None}


def _outcome(**others: Any) -> dict[str, Any]:
    gate = {"blessed": True, "metrics": {"mean_error": 0.0125}, "thresholds": [], "not_pushed_because": None}
    drift = {"since": "/versions/1", "changes": {}}
    return {"error": None, "images": {"train": 1200}, "seconds": 61.0, "drift": drift, **gate, **others}


@pytest.fixture
def configurations(tmp_path: Path) -> dict[str, Configuration]:
    """Three products; `cap` has a version of 2 October 2026, a report and a thumbnail."""
    found = {}
    for name in ("cap", "lid", "box"):
        (tmp_path / name).mkdir()
        found[name] = Configuration.model_validate({"name": name, "root": str(tmp_path)})
    (tmp_path / "cap" / "serving" / "1790899200").mkdir(parents=True)
    (tmp_path / "cap" / "report.html").touch()
    (tmp_path / "cap" / "thumbnails.json").write_text(json.dumps([THUMBNAIL]))
    return found


@pytest.fixture
def page(tmp_path: Path, configurations: dict[str, Configuration]) -> str:
    refused = {"blessed": False, "thresholds": [{"reason": "<b>too</b> large"}, {"reason": None}]}
    drifted = {"since": "/versions/1", "changes": {"contrast": "0.1 -> 0.3"}}
    outcomes = {
        "cap": _outcome(),
        "lid": _outcome(**refused, drift=drifted),
        "box": {"error": "Trainer: out of memory", "blessed": False, "metrics": {}, "seconds": 3.0},
    }
    products = [product_of(configurations[name], outcome) for name, outcome in outcomes.items()]
    [index] = write_indexes(configurations.values(), products)
    assert index == tmp_path / "index.html"
    return index.read_text()


def test_the_worst_come_first_with_reason_age_drift_pictures_and_report(page: str) -> None:
    assert [page.index(f'id="{name}"') for name in ("box", "lid", "cap")] == sorted(
        page.index(f'id="{name}"') for name in ("cap", "lid", "box")
    )
    box, lid, cap = page.split("<article")[1:]
    assert "Trainer: out of memory" in box
    assert "none pushed yet" in box
    assert "&lt;b&gt;too&lt;/b&gt; large" in lid
    assert '<span class="alert">contrast: 0.1 -&gt; 0.3</span>' in lid
    assert '<time datetime="2026-10-02T00:00:00+00:00">2026-10-02</time>, version 1790899200' in cap
    assert '<a href="cap/report.html">Report</a>' in cap
    assert '<img src="data:,a" alt="worst image">' in cap
    assert "0.0125" in cap
    assert "<dt>drift</dt><dd>none</dd>" in cap


def test_the_server_can_read_the_models_that_the_index_lists(page: str, tmp_path: Path) -> None:
    models = read_model_config(tmp_path / "models.config")
    assert [(model.name, model.base_path) for model in models] == [("cap", tmp_path / "cap" / "serving")]


def test_a_later_run_changes_its_own_entry_and_a_removed_folder_leaves_the_index(
    page: str, tmp_path: Path, configurations: dict[str, Configuration]
) -> None:
    (tmp_path / "lid").rmdir()
    update_if_listed(configurations["box"], _outcome(metrics={"mean_error": 0.25}))
    products = {product["name"]: product for product in json.loads((tmp_path / "index.json").read_text())}
    assert {name: product["verdict"] for name, product in products.items()} == {"box": "blessed", "cap": "blessed"}
    assert products["box"]["metrics"] == {"mean_error": 0.25}


def test_the_run_of_a_product_outside_the_index_writes_none(
    tmp_path: Path, configurations: dict[str, Configuration]
) -> None:
    update_if_listed(configurations["cap"], _outcome())
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize("text", ['[{"name": "cap"}]', '{"cap": 1}', "{"])
def test_a_list_of_another_version_does_not_fail_a_run(
    tmp_path: Path, configurations: dict[str, Configuration], text: str
) -> None:
    (tmp_path / "index.json").write_text(text)
    update_if_listed(configurations["cap"], _outcome())
    assert (tmp_path / "index.json").read_text() == text


def test_a_version_in_an_object_store_is_dated_by_its_microseconds(tmp_path: Path) -> None:
    values = {"name": "cap", "root": str(tmp_path), "push": {"destination": "s3://models/cap"}}
    product = product_of(Configuration.model_validate(values), _outcome(pushed="s3://models/cap/1790899200000001"))
    assert product.in_service_since == "2026-10-02T00:00:00+00:00"


def test_only_a_file_of_models_that_lists_one_of_the_products_is_offered(
    tmp_path: Path, configurations: dict[str, Configuration]
) -> None:
    """Neither a model in an object store nor one below another root."""
    remote = {"name": "far", "root": str(tmp_path / "far"), "push": {"destination": "s3://models/far"}}
    far = product_of(Configuration.model_validate(remote), _outcome(pushed="s3://models/far/1790899200000001"))
    cap = product_of(configurations["cap"], _outcome())
    pages = write_indexes([configurations["cap"], Configuration.model_validate(remote)], [cap, far])
    assert [models_beside(page, [cap, far]) for page in pages] == [tmp_path / "models.config", None]
    with pytest.raises(ModelConfigError, match="names no model"):
        read_model_config(pages[1].with_name("models.config"))
