"""Exports a model of each family to each runtime, and compares it there with the SavedModel: `autoencoder export`.

Each family is trained and exported in a process of its own.
"""

import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.comparison import Comparison
from bench.timing import BenchmarkError, in_new_process
from schema.features import EVAL, TEST
from serving.exporting.runtimes import TARGETS, Precision, Target
from trainer.settings.families import FAMILY_SETTINGS

_AREA: Final = "export"
_FORMS: Final[tuple[tuple[Target, Precision], ...]] = tuple(
    (target, precision)
    for precision in ("float32", "float16", "int8")
    for target in TARGETS
    if (target, precision) != ("openvino", "int8")
)
_MAX_OF_SAVED_MODEL: Final = 1.0
_SIDE_PX: Final = 32
_SIDES_OF_FEATURES: Final = {"tiny": 64, "small": 64, "full": 224}
"""Its usual size, which its time depends on."""


@dataclass(frozen=True)
class Parity:
    """How a family's exported model compares with its SavedModel; `refusal` is empty, or why there is none."""

    family: str
    target: Target
    precision: Precision
    refusal: str = ""
    images: int = 0
    same_verdicts: int = 0
    worst_difference: float = 0.0
    """Of a score, as a share of the SavedModel's."""
    auroc: tuple[float, float] | None = None
    """(SavedModel, exported), if test images of both kinds were replayed."""
    size_bytes: int = 0
    saved_model_bytes: int = 0
    milliseconds: float = 0.0
    saved_model_milliseconds: float = 0.0
    """Medians for one image, encoded, with its maps."""


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Per runtime and precision, the time of an image in all families together, against the SavedModels'.

    `details` has the parity of each family. Repetitions are not needed, because each time is a median over images.
    """
    families = ["dense"] if size == "tiny" else list(FAMILY_SETTINGS)
    forms = _FORMS[:1] if size == "tiny" else _FORMS
    found = [parity for family in families for parity in in_new_process(_parities, family, size, forms)]
    return [_comparison([one for one in found if (one.target, one.precision) == form]) for form in forms]


def _comparison(parities: list[Parity]) -> Comparison:
    """Of one runtime and precision."""
    exported = [one for one in parities if not one.refusal]
    if not exported:
        raise BenchmarkError("; ".join(one.refusal for one in parities))
    what = f"an image in each family, {exported[0].target} {exported[0].precision}"
    ours_s = sum(one.milliseconds for one in exported) / 1000.0
    reference_s = sum(one.saved_model_milliseconds for one in exported) / 1000.0
    return Comparison(
        _AREA,
        what,
        "their SavedModels",
        (ours_s,),
        (reference_s,),
        _MAX_OF_SAVED_MODEL,
        len(exported),
        details=tuple(asdict(one) for one in parities),
    )


def _parities(family: str, size: str, forms: tuple[tuple[Target, Precision], ...]) -> list[Parity]:
    """Train a model of the family and export it in all `forms`. Call it in a new process."""
    from bench.small_models import train_on_samples, write_samples

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side_px = _SIDES_OF_FEATURES[size] if family == "features" else _SIDE_PX
        model = train_on_samples(family, side_px, folder / "model")
        held_out, test = (write_samples(folder / split, split) for split in (EVAL, TEST))
        patterns = {"parity": test, "held_out": held_out, "test": test}
        return [_parity(model, folder, family, *form, patterns) for form in forms]


def _parity(
    model: Path, folder: Path, family: str, target: Target, precision: Precision, images: dict[str, str]
) -> Parity:
    from serving.exporting.decision import NotExportableError
    from serving.exporting.export import export_model
    from serving.exporting.proof import ExportRefusedError

    of_this = partial(Parity, family, target, precision)
    output = folder / f"{target}-{precision}"
    try:
        done = export_model(model, output, target=target, precision=precision, **images)
    except (NotExportableError, ExportRefusedError) as error:
        print(f"  {family}, {target} {precision}: {error}", file=sys.stderr)
        return of_this(str(error))
    found = done.comparison
    auroc = " AUROC {:.4f}, {:.4f}".format(*found.auroc) if found.auroc else ""
    print(
        f"  {family}, {target} {precision}: {found.worst_difference:.1e}, {found.same_verdicts} of {found.images} "
        f"verdicts,{auroc} {done.size_bytes / 1e6:.2f} MB, {found.milliseconds:.1f} ms "
        f"(SavedModel: {found.served_milliseconds:.1f} ms)",
        file=sys.stderr,
    )
    return of_this(
        images=found.images,
        same_verdicts=found.same_verdicts,
        worst_difference=found.worst_difference,
        auroc=found.auroc,
        size_bytes=done.size_bytes,
        saved_model_bytes=sum(path.stat().st_size for path in model.rglob("*") if path.is_file()),
        milliseconds=found.milliseconds,
        saved_model_milliseconds=found.served_milliseconds,
    )
