"""PNG pictures of image files, for people to look at in a browser."""

from io import BytesIO

from PIL import Image

from images.decoding import picture_of


def png_to_look_at(content: bytes, *, ends: tuple[float, float] | None = None, longest_px: int | None = None) -> bytes:
    """What a file shows, as PNG of 8 bits, shrunk so that its longer side has at most `longest_px`.

    `ends`: as in `picture_of`. Raises UnreadableImageError like `decoding.shown`.
    """
    pixels = picture_of(content, ends=ends)
    picture = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])
    if longest_px is not None:
        picture.thumbnail((longest_px, longest_px), Image.Resampling.BOX)
    png = BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return png.getvalue()
