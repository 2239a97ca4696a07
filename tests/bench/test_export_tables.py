"""The tables of docs/export.md: what was refused, not measured, or differs is visible."""

from bench.export_tables import tables


def row(family, target, precision, *, same=70, refusal="", auroc=(0.98, 0.9712)):
    return {
        "family": family, "target": target, "precision": precision, "refusal": refusal, "images": 70,
        "same_verdicts": same, "worst_difference": 4.2e-5, "auroc": auroc, "size_bytes": 810_000,
        "saved_model_bytes": 1_600_000, "milliseconds": 0.34, "saved_model_milliseconds": 0.91,
    }  # fmt: skip


def test_the_tables_show_the_fewest_equal_verdicts_refusals_and_gaps():
    measured = [
        row("conv", "onnx", "float32"),
        row("conv", "litert", "float32", same=9),
        row("conv", "openvino", "float32", refusal="why"),
        row("conv", "onnx", "int8", same=69),
        row("conv", "litert", "int8", auroc=None),
    ]
    lines = list(tables([{"details": measured[:3]}, {"details": measured[3:]}]))
    assert "| `conv` | 9 of 70 | 4e-5 | 4e-5 | refused | 0.9 | 0.3 | 0.3 | refused |" in lines
    assert "| `conv` | int8 | 4e-5; 69 of 70; 0.9800, 0.9712 | 4e-5; 70 of 70 | – |" in lines
    assert "| `conv` | float16 | – | – | – |" in lines
    assert (
        "| preset | SavedModel | ONNX float32 | ONNX int8 | LiteRT float32 | LiteRT int8 | OpenVINO float32 |" in lines
    )
    assert "| `conv` | 1.60 | 0.81 | 0.81 | 0.81 | 0.81 | refused |" in lines
