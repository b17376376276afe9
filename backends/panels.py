"""Crops of an image as one sheet of numbered panels, so that a model sees the whole scene and each detail large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps

# A box is shown with so much of its surroundings, as a share of its sides.
PADDING = 0.15
_PANEL_PX = 336
_LABEL_PX = 28
_GAP_PX = 6
_MIN_SIDE_PX = 2.0
_QUALITY = 90
_ON_ITS_SIDE = frozenset({5, 6, 7, 8})


class Box(NamedTuple):
    """A rectangle in pixels of the image: left, top, right, bottom; `label` is drawn on its panel."""

    left: float
    top: float
    right: float
    bottom: float
    label: str


def fitting(boxes: Sequence[Box], width: int, height: int) -> list[int]:
    """The places of the boxes that show something: finite, in order, and at least two pixels within the image."""
    return [place for place, box in enumerate(boxes) if _clipped(box, width, height) is not None]


def size_of(image: bytes) -> tuple[int, int]:
    """(width, height) in pixels as it is shown, after its orientation tag; decodes no pixel."""
    with Image.open(BytesIO(image)) as opened:
        on_its_side = opened.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
        return (opened.height, opened.width) if on_its_side else opened.size


def sheet(image: bytes, boxes: Sequence[Box]) -> bytes:
    """A JPEG with a panel for each box, numbered from 1 in the order of the boxes, row by row."""
    with Image.open(BytesIO(image)) as opened:
        scene = ImageOps.exif_transpose(opened).convert("RGB")
    columns = math.ceil(math.sqrt(len(boxes)))
    rows = math.ceil(len(boxes) / columns)
    step_x, step_y = _PANEL_PX + _GAP_PX, _PANEL_PX + _LABEL_PX + _GAP_PX
    page = Image.new("RGB", (columns * step_x - _GAP_PX, rows * step_y - _GAP_PX), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_LABEL_PX - 8)
    for place, box in enumerate(boxes):
        left, top = place % columns * step_x, place // columns * step_y
        draw.text((left + 4, top + 2), f"{place + 1} {_drawable(box.label)}"[:40], fill="black", font=font)
        panel = ImageOps.contain(scene.crop(_padded(box, *scene.size)), (_PANEL_PX, _PANEL_PX))
        page.paste(panel, (left + (_PANEL_PX - panel.width) // 2, top + _LABEL_PX))
    out = BytesIO()
    page.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _drawable(label: str) -> str:
    """What the built-in font can draw."""
    return label.encode("latin-1", "replace").decode("latin-1")


def _clipped(box: Box, width: int, height: int) -> tuple[float, float, float, float] | None:
    sides = box[:4]
    if not all(math.isfinite(side) for side in sides):
        return None
    left, top = max(0.0, box.left), max(0.0, box.top)
    right, bottom = min(float(width), box.right), min(float(height), box.bottom)
    if right - left < _MIN_SIDE_PX or bottom - top < _MIN_SIDE_PX:
        return None
    return left, top, right, bottom


def _padded(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    clipped = _clipped(box, width, height)
    assert clipped is not None, "boxes that do not fit are left out before"
    left, top, right, bottom = clipped
    more_x, more_y = PADDING * (right - left), PADDING * (bottom - top)
    return (
        math.floor(max(0.0, left - more_x)),
        math.floor(max(0.0, top - more_y)),
        math.ceil(min(float(width), right + more_x)),
        math.ceil(min(float(height), bottom + more_y)),
    )
