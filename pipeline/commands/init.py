"""`autoencoder init`: writes a configuration for a folder of images, or for a manifest."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import PATH
from pipeline.commands.serve import quieten_tensorflow
from pipeline.errors import Command
from runtime.errors import UsageError
from schema.features import printable

if TYPE_CHECKING:  # `--help` must not wait for these imports
    from components.sources.inspection import FilesFacts
    from trainer.settings.image import ImageSettings

_NAMED = 3
"""Files that are named, of each kind."""
_SMALLEST_SEEN_PX = 8
"""Stride of the feature maps: what is smaller in the scaled image is averaged with its surroundings."""
_SCALED_MUCH = 1.5
_NOT_EXISTING = "choose another file with --output, or another name with --name"


@click.command(cls=Command)
@click.argument("folder_or_manifest")
@click.option("--name", help="Name of the pipeline (default: from the folder's or manifest's name).")
@click.option("--output", type=PATH, help="File to write (default: NAME.yaml); an existing file is never overwritten.")
def init(folder_or_manifest: str, name: str | None, output: Path | None) -> None:
    """Write a configuration for a folder of images, or a manifest.

    Inspects the folder, or the images that a CSV manifest lists.

    Prints what was found, what was chosen, and the command to run next.

    Example: autoencoder init parts/bottles --name bottle
    """
    from pipeline.configuration.new_file import name_for

    path = folder_or_manifest
    name = name or name_for(_name_of(path))
    output = output or Path(f"{name}.yaml")
    if output.exists():
        raise UsageError(f"{output}: exists already; {_NOT_EXISTING}")
    from pipeline.configuration.new_file import compose, image_settings_for, tiled_settings_for
    from runtime.imports import imported_for_good

    quieten_tensorflow()
    with imported_for_good():
        from components.sources.inspection import inspect_files

    facts = inspect_files(path)
    if not facts.height_px:
        first = facts.unreadable[0]
        raise UsageError(f"{path}: none of {facts.inspected} images can be read; {first.image_id}: {first.reason}")
    image = image_settings_for(
        height_px=facts.height_px,
        width_px=facts.width_px,
        is_grey=facts.is_grey,
        has_one_aspect=facts.has_one_aspect,
        used_bits=facts.used_bits,
        has_values=facts.has_values,
        has_regions=facts.has_regions,
    )
    found = _findings(facts, image)
    image_comments = tuple(
        f"{name.capitalize()}: {found[name]}." for name in ("size", "colour", "depth", "regions") if name in found
    )
    text = compose(
        command=f"autoencoder run {shlex.quote(str(output))}",
        name=name,
        source=facts.source,
        path=path,
        normal_labels=facts.normal_labels,
        labels=() if facts.normality_is_known else facts.labels,
        image=image,
        tiled=tiled_settings_for(image, facts.height_px, facts.width_px) if _is_scaled_much(facts, image) else None,
        comments={"data": (f"Images: {found['images']}.", f"Normal: {found['normal']}."), "image": image_comments},
    )
    _write(output, text)
    click.echo(printable(f"{name}: {path}"))
    for subject, finding in found.items():
        click.echo(f"  {subject:<11} {finding}")
    click.echo(f"wrote {output}\nnext: autoencoder run {shlex.quote(str(output))}")


def _name_of(path: str) -> str:
    """The folder's name, or the manifest's without its suffix."""
    name = path.rstrip("/").rpartition("/")[2] if "://" in path else Path(path).expanduser().absolute().name
    return name.removesuffix(".csv")


def _findings(facts: "FilesFacts", image: "ImageSettings") -> dict[str, str]:
    """Subject -> what was found and chosen, in one line."""
    found = {"images": _images(facts), "normal": _normal(facts), "size": _size(facts, image), "colour": _colour(facts)}
    if facts.has_values:
        found["depth"] = "values without black and white of their own, so percentiles 0.1 and 99.9 become 0 and 1"
    elif facts.used_bits:
        found["depth"] = f"files of 16 bits, of which {facts.used_bits} are used, so image.depth is 16"
    if facts.of_other_kind:
        kinds = "levels of 8 or 16 bits", "values in units of their own, such as floats"
        others, most = kinds if facts.has_values else reversed(kinds)
        count = len(facts.of_other_kind)
        named = ", ".join(facts.of_other_kind[:_NAMED]) + (", ..." if count > _NAMED else "")
        found["mixed"] = (
            f"{count} of {facts.inspected} inspected images hold {others} ({named}), the others hold {most}; "
            f"no image.range suits both: convert {'it' if count == 1 else 'them'} to the scale of the others, or leave "
            f"{'it' if count == 1 else 'them'} out"
        )
    if facts.has_regions:
        found["regions"] = "each image's own, from the column roi, so image.alpha is roi"
    if facts.groups:
        found["groups"] = (
            f"{len(facts.groups)}, from the column group; evaluation.groups: group gives each a threshold of its own"
        )
    if facts.unreadable:
        named = "; ".join(f"{reject.image_id}: {reject.reason}" for reject in facts.unreadable[:_NAMED])
        found["unreadable"] = f"{len(facts.unreadable)} of {facts.inspected} inspected images ({named})"
        if facts.has_too_many_unreadable:
            found["unreadable"] += (
                "; a run would stop, because these are more than data.max_reject_fraction, "
                f"{facts.max_reject_fraction:.0%}: repair or remove them, or raise the limit"
            )
    if facts.files_of_pages:
        found["pages"] = (
            f"{facts.files_of_pages} of {facts.inspected} inspected files have several, "
            f"{facts.inspected_pages} in all; only the first of each file is used, "
            "unless image.page is all, which makes every page an image"
        )
    if facts.skipped:
        found["skipped"] = f"{facts.skipped} (not a supported image format)"
    if facts.manifest:
        found["manifest"] = (
            f"{Path(facts.manifest).name} lists {facts.listed:,} of these images, and may know labels, splits or "
            f"masks; to use it: autoencoder init {shlex.quote(facts.manifest)}"
        )
    if facts.warning:
        found["warning"] = facts.warning
    return {subject: printable(finding, kept="") for subject, finding in found.items()}


def _images(facts: "FilesFacts") -> str:
    counts = [
        f"{'/'.join(part for part in (split, label) if part)} {count:,}"
        for (split, label), count in sorted(facts.images_in.items(), key=lambda item: (item[0][0] or "", item[0][1]))
        if split or label
    ]
    if facts.source == "csv":
        layout = "listed in the manifest"
    else:
        layout = "named splits" if facts.splits else "one folder per class" if facts.labels else "no subfolders"
    return f"{facts.image_count:,}, {layout}" + (f": {', '.join(counts)}" if counts else "")


def _normal(facts: "FilesFacts") -> str:
    if facts.normality_is_known:
        known_from = "the folders' names" if facts.source == "folder" else "the manifest"
        return f"known from {known_from}; images of other classes are used only for testing"
    if facts.normal_labels:
        named = ", ".join(repr(label) for label in facts.normal_labels if label)
        return f"{named}, by its name (data.normal_labels); images of other classes are used only for testing"
    if len(facts.labels) > 1:
        return (
            f"no class has a name such as good or ok, so all {len(facts.labels)} count as normal; if some are "
            "defects, list the normal ones in data.normal_labels; if they are variants of a product, "
            "evaluation.groups: label gives each a threshold of its own"
        )
    return "all images count as normal; a few defects among them do little harm, many do"


def _size(facts: "FilesFacts", image: "ImageSettings") -> str:
    found = f"{facts.width_px}x{facts.height_px} pixels"
    if facts.sizes > 1:
        found = f"{facts.sizes} sizes, median {found}"
    chosen = f"scaled to {image.width_px}x{image.height_px} (width x height)"
    if image.fit == "pad":
        chosen += ", padded with black because aspect ratios differ"
    if _is_scaled_much(facts, image):
        lost_px = round(_SMALLEST_SEEN_PX * _scaled_by(facts, image))
        chosen += f"; defects below about {lost_px} pixels may be lost, unless image.tiles is set (docs/tiles.md)"
    return f"{found}, {chosen}"


def _scaled_by(facts: "FilesFacts", image: "ImageSettings") -> float:
    return max(facts.width_px / image.width_px, facts.height_px / image.height_px)


def _is_scaled_much(facts: "FilesFacts", image: "ImageSettings") -> bool:
    return _scaled_by(facts, image) > _SCALED_MUCH


def _colour(facts: "FilesFacts") -> str:
    if not facts.is_grey:
        return "colour, so 3 channels"
    return "grey, stored as RGB, so 1 channel" if facts.stored_channels > 1 else "grey, so 1 channel"


def _write(output: Path, text: str) -> None:
    """Write a new file, and remove it again if it is not a valid configuration, because of a name for example."""
    from pipeline.configuration.loading import load_configuration

    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{output}: exists already; {_NOT_EXISTING}") from None
    except (OSError, UnicodeError) as error:  # the latter: a folder's name that is not valid text
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{output}: cannot be written: {reason}; choose another file with --output") from None
    try:
        load_configuration(output)
    except UsageError:
        output.unlink()
        raise
