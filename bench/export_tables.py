"""The tables of docs/export.md, from what the area `export` measured."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Row = dict[str, Any]
"""The fields of `bench.export.Parity`."""

_NAMES: Final = {"onnx": "ONNX", "litert": "LiteRT", "openvino": "OpenVINO"}
_REDUCED: Final = ("float16", "int8")
_NONE: Final = "–"


def tables(comparisons: Iterable[Row]) -> Iterator[str]:
    """Lines of Markdown: parity and time in float32; parity in fewer bits; sizes."""
    found = {(row["family"], row["target"], row["precision"]): row for one in comparisons for row in one["details"]}
    families = list(dict.fromkeys(family for family, _, _ in found))

    def cells(family: str, precision: str, show: Callable[[Row], str]) -> list[str]:
        """Of each target; a target that does not have the precision has no row."""
        return [_cell(found.get((family, target, precision)), show) for target in _NAMES]

    yield "Worst difference of a score in float32, as a share of the SavedModel's, and milliseconds per image:"
    yield ""
    yield from _head(
        "preset", "same verdicts", *_NAMES.values(), "SavedModel, ms", *(f"{name}, ms" for name in _NAMES.values())
    )
    for family in families:
        first = found[family, "onnx", "float32"]
        rows = [row for row in found.values() if row["family"] == family and row["precision"] == "float32"]
        verdicts = _verdicts(min(rows, key=lambda row: row["same_verdicts"]))
        time = cells(family, "float32", lambda row: f"{row['milliseconds']:.1f}")
        saved_model = f"{first['saved_model_milliseconds']:.1f}"
        yield _line([f"`{family}`", verdicts, *cells(family, "float32", _difference), saved_model, *time])
    yield ""
    yield "In fewer bits: the worst difference, equal verdicts, and the AUROC of the SavedModel and of the file:"
    yield ""
    yield from _head("preset", "precision", *_NAMES.values())
    for family in families:
        for precision in _REDUCED:
            yield _line([f"`{family}`", precision, *cells(family, precision, _in_fewer_bits)])
    yield ""
    yield "Sizes in MB, weights included:"
    yield ""
    forms = list(dict.fromkeys((target, precision) for _, target, precision in found))
    forms.sort(key=lambda form: list(_NAMES).index(form[0]))
    yield from _head("preset", "SavedModel", *(f"{_NAMES[target]} {precision}" for target, precision in forms))
    for family in families:
        sizes = [_cell(found.get((family, *form)), lambda row: f"{row['size_bytes'] / 1e6:.2f}") for form in forms]
        saved_model = max(row["saved_model_bytes"] for row in found.values() if row["family"] == family)
        yield _line([f"`{family}`", f"{saved_model / 1e6:.2f}", *sizes])


def _cell(row: Row | None, show: Callable[[Row], str]) -> str:
    if row is None:
        return _NONE
    return "refused" if row["refusal"] else show(row)


def _difference(row: Row) -> str:
    return f"{row['worst_difference']:.0e}".replace("e-0", "e-")


def _verdicts(row: Row) -> str:
    return f"{row['same_verdicts']} of {row['images']}"


def _in_fewer_bits(row: Row) -> str:
    auroc = f"; {row['auroc'][0]:.4f}, {row['auroc'][1]:.4f}" if row["auroc"] else ""
    return f"{_difference(row)}; {_verdicts(row)}{auroc}"


def _head(*names: str) -> Iterator[str]:
    yield _line(names)
    yield _line(["---"] * len(names))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
