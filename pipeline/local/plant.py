"""Runs the pipelines of several products, one after the other, in this process."""

import gc
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from pipeline.configuration.configuration import Configuration
from pipeline.errors import interrupt_on_signals, message_of, raise_if_interrupted, translate
from pipeline.local.product_index import BLESSED, Product, models_beside, product_of, write_indexes
from pipeline.local.product_index import FAILED as RUN_FAILED
from pipeline.local.run import exit_code, outcome_of
from pipeline.terminal import plain_console, plain_table
from runtime.errors import DONE, FAILED, REFUSED

_WORST_LAST = (DONE, REFUSED, FAILED)
_MAIN_METRICS = {"mean_error": "mean error", "auroc": "AUROC", "synthetic_auroc": "synthetic"}


def run_products(configurations: Sequence[Configuration], *, as_json: bool, same_product: bool = False) -> int:
    """Run each product's pipeline, also after one has failed, and return the exit code of the worst.

    After each product, the index pages beside the products' folders are written.
    """
    interrupt_on_signals()
    console = plain_console(stderr=as_json)
    documents: list[dict[str, Any]] = []
    products: list[Product] = []
    for number, configuration in enumerate(configurations, 1):
        console.print(f"{'' if number == 1 else chr(10)}[{number} of {len(configurations)}]", style="bold")
        document = _outcome(configuration, as_json=as_json, same_product=same_product)
        documents.append({"name": configuration.name, **document})
        products.append(product_of(configuration, document))
        pages = write_indexes(configurations, products)
        gc.collect()  # the next run's import of TensorFlow Extended would make what is left permanent
    console.print()
    console.print(_table(products))
    console.print()
    for page in pages:
        console.print(f"index        {page}")
        if models := models_beside(page, products):
            console.print(f"serve them   autoencoder serve --model_config_file {models}")
    if as_json:
        print(json.dumps({"products": documents, "index": [str(page) for page in pages]}, indent=2))
    return max((exit_code(document) for document in documents), key=_WORST_LAST.index)


def _outcome(configuration: Configuration, *, as_json: bool, same_product: bool) -> dict[str, Any]:
    """The document of one run; whatever ends it becomes its `error`."""
    started = time.monotonic()
    try:
        return outcome_of(configuration, as_json=as_json, same_product=same_product)
    except Exception as error:
        raise_if_interrupted()
        folder = Path(configuration.root).expanduser().absolute() / configuration.name
        if translate(error) is None:  # a bug: the other products must run nevertheless
            logging.getLogger(__name__).error("%s failed", configuration.name, exc_info=error)
        plain_console(stderr=as_json).print(f"{configuration.name} failed: {message_of(error)}", style="red")
        seconds = round(time.monotonic() - started, 2)
        return {"run": str(folder), "blessed": False, "error": message_of(error), "metrics": {}, "seconds": seconds}


def _table(products: Sequence[Product]) -> Any:
    columns = ("product", "verdict", *_MAIN_METRICS.values(), "seconds", "reason")
    table = plain_table(columns, right=(*_MAIN_METRICS.values(), "seconds"), wrapped=("reason",))
    for product in products:
        metrics = [product.metrics.get(name) for name in _MAIN_METRICS]
        style = {BLESSED: "green", RUN_FAILED: "red"}.get(product.verdict, "yellow")
        table.add_row(
            product.name,
            Text(product.verdict, style),
            *("" if value is None else f"{value:.4g}" for value in metrics),
            f"{product.seconds:,.0f}",
            product.reason,
        )
    return table
