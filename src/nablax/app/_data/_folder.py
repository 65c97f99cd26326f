"""A folder of pictures; the sub-folders' names are their labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from .._errors import UserError
from ._tables import Batches

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def folder(path: Path, *, image_size: int | None = None) -> tuple[Batches, list[Path], tuple[int, int, int]]:
    """Open a folder of pictures of one size, or cut and resized to one.

    Args:
        path: the folder; pictures lie in it, or in its sub-folders, whose names become the column ``label``.
        image_size: side of the square that each picture is cut (at its centre) and resized to; None keeps the size.

    Returns:
        Batch size to its batches (columns ``image`` and, where there are sub-folders, ``label``), the pictures in
        order, and the shape [height, width, channels]. Channels are 1 when every picture is grayscale, else 3.

    Raises:
        UserError: no pictures, an unreadable one, or different sizes without ``image_size``.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(path, f"no pictures in the folder ({', '.join(SUFFIXES)})")
    parents = {file.relative_to(path).parts[0] if file.parent != path else "" for file in files}
    if "" in parents and len(parents) > 1:
        raise UserError(
            path, "some pictures lie in sub-folders and some do not; put each in a folder named by its label"
        )
    sizes, grayscale = set(), True
    for file in files:
        size, mode = _header(file)
        sizes.add(size)
        grayscale = grayscale and mode in ("1", "L", "LA", "I", "F", "I;16", "I;16B")
        if image_size is None and len(sizes) > 1:
            first, second = sorted(sizes)
            raise UserError(
                path, f"pictures of different sizes ({first[0]}×{first[1]}, {second[0]}×{second[1]}); give --image-size"
            )
    width, height = (image_size, image_size) if image_size else next(iter(sizes))
    channels = 1 if grayscale else 3

    def batches(rows: int) -> Iterator[pl.DataFrame]:
        # Decoded pictures are large beside their files: hold few at a time whatever was asked for.
        rows = max(1, min(rows, (256 << 20) // (width * height * channels)))
        for at in range(0, len(files), rows):
            part = files[at : at + rows]
            pixels = np.stack([_pixels(file, image_size, channels) for file in part])
            frame = pl.DataFrame({"image": pixels})
            if "" not in parents:
                labels = [file.relative_to(path).parts[0] for file in part]
                frame = frame.with_columns(pl.Series("label", labels))
            yield frame

    return batches, files, (height, width, channels)


def _header(file: Path) -> tuple[tuple[int, int], str]:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return picture.size, picture.mode
    except Exception:  # Pillow's decoders raise what they like on damaged input
        raise UserError(file, "no readable picture, it may be cut short") from None


def _pixels(file: Path, image_size: int | None, channels: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            if picture.mode.startswith("I"):
                # Sixteen bits: Pillow's own conversion clips instead of scaling.
                deep = np.asarray(picture, np.float64)
                plain = Image.fromarray((deep / 257.0).round().clip(0, 255).astype(np.uint8))
            else:
                plain = picture.convert("L" if channels == 1 else "RGB")
    except Exception:
        raise UserError(file, "no readable picture, it may be cut short") from None
    plain = plain if channels == 1 or plain.mode == "RGB" else plain.convert("RGB")
    if image_size is not None and plain.size != (image_size, image_size):
        width, height = plain.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Cut first: resizing a box lets in what lies around it.
        plain = plain.crop((left, top, left + side, top + side))
        plain = plain.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(plain, np.uint8).reshape(plain.size[1], plain.size[0], channels)
