"""Sheets of zoom panels: which boxes are shown, how much of their surroundings, and where each stands."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import pytest
from PIL import ExifTags, Image

from backends.panels import Box, fitting, sheet, size_of

PANEL, LABEL, GAP = 336, 28, 6
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(width: int = 400, height: int = 300, colour: Any = BLUE) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def box(left: float, top: float, right: float, bottom: float, label: str = "cup") -> Box:
    return Box(left, top, right, bottom, label)


def drawn(image: Image.Image, *boxes: Box) -> Image.Image:
    """The sheet of these boxes, decoded."""
    made = Image.open(BytesIO(sheet(encoded(image), boxes)))
    assert made.format == "JPEG"
    return made


def colour_of(page: Image.Image, x: float, y: float) -> str:
    """The nearest plain colour at a place of a sheet: JPEG changes them a little."""
    known = {"red": RED, "blue": BLUE, "white": (255, 255, 255), "black": (0, 0, 0)}
    found: Any = page.getpixel((int(x), int(y)))
    return min(known, key=lambda name: math.dist(known[name], found))


def test_a_box_is_shown_with_fifteen_hundredths_of_its_sides_around_it() -> None:
    """A red box of 100 × 100 on blue fills 100/130 of its panel, in the middle."""
    image = scene()
    image.paste(RED, (100, 100, 200, 200))
    page = drawn(image, box(100, 100, 200, 200))
    assert page.size == (PANEL, LABEL + PANEL)
    edge = PANEL * 15 / 130
    for x, y in ((edge - 8, PANEL / 2), (PANEL - edge + 8, PANEL / 2), (PANEL / 2, edge - 8)):
        assert colour_of(page, x, LABEL + y) == "blue"
    for x, y in ((edge + 8, PANEL / 2), (PANEL - edge - 8, PANEL / 2), (PANEL / 2, PANEL - edge - 8)):
        assert colour_of(page, x, LABEL + y) == "red"


def test_what_lies_outside_of_the_image_is_cut_off() -> None:
    """A box that reaches over the image shows what there is of it, and no black."""
    page = drawn(scene(), box(-500, -500, 5000, 5000))
    assert colour_of(page, PANEL / 2, LABEL + PANEL * 0.4) == "blue"
    assert colour_of(page, PANEL / 2, LABEL + PANEL - 3) == "white"  # 4:3 in a square
    assert fitting([box(380, 280, 5000, 5000)], 400, 300) == [0]


@pytest.mark.parametrize(
    "sides",
    [
        (200, 100, 100, 200),
        (100, 200, 200, 100),
        (math.nan, 0, 50, 50),
        (0, 0, math.inf, 50),
        (-math.inf, 0, 50, 50),
        (10, 10, 10, 10),
        (10, 10, 11, 50),
        (400, 0, 500, 50),
        (-50, 0, 0, 50),
        (0, 0, 0, 0),
    ],
)
def test_a_box_that_shows_nothing_is_skipped(sides: tuple[float, float, float, float]) -> None:
    """Reversed, empty, outside, without end or no number at all: the place of such a box is not among the fitting."""
    assert fitting([box(0, 0, 50, 50), box(*sides), box(5, 5, 60, 60)], 400, 300) == [0, 2]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (5, 3, 2), (20, 5, 4)])
def test_panels_stand_in_rows(count: int, columns: int, rows: int) -> None:
    """The sheet is as square as the number of its panels allows; up to 20 fit."""
    page = drawn(scene(), *[box(0, 0, 50, 50) for _ in range(count)])
    assert page.size == (columns * (PANEL + GAP) - GAP, rows * (PANEL + LABEL + GAP) - GAP)


def test_panels_stand_in_the_order_of_their_boxes() -> None:
    """Row by row: of three boxes only the second is red, and it stands on the right of the first row."""
    image = scene()
    image.paste(RED, (200, 0, 400, 300))
    page = drawn(image, box(0, 0, 50, 50), box(300, 100, 350, 150), box(0, 100, 50, 150))
    right, below = PANEL + GAP, PANEL + LABEL + GAP
    middles = [(0, 0), (right, 0), (0, below)]
    found = [colour_of(page, x + PANEL / 2, y + LABEL + PANEL / 2) for x, y in middles]
    assert found == ["blue", "red", "blue"]
    assert colour_of(page, right + PANEL / 2, below + LABEL + PANEL / 2) == "white"


def test_each_panel_is_numbered_and_named() -> None:
    """Above each panel something is written, and another label is another picture."""

    def strip(label: str, count: int = 1) -> list[Any]:
        page = drawn(scene(), *[box(0, 0, 50, 50, label) for _ in range(count)])
        return list(page.crop((page.width - PANEL, 0, page.width, LABEL)).convert("L").tobytes())

    assert min(strip("cup")) < 100
    assert strip("cup") != strip("dog")
    assert strip("cup") != strip("cup", 2)  # the second has another number


@pytest.mark.parametrize("label", ["чашка", "杯子", "🍵", "", "a\nb", "x" * 500, "\x00"])
def test_any_label_can_be_drawn(label: str) -> None:
    """Letters that the font lacks, none at all, or far too many: the sheet is made."""
    assert drawn(scene(), box(0, 0, 50, 50, label)).size == (PANEL, LABEL + PANEL)


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_that_of_the_image_as_it_is_shown(orientation: int, size: tuple[int, int], kind: str) -> None:
    """An orientation tag that lays the image on its side swaps width and height."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert size_of(encoded(scene(40, 20), kind, exif=exif)) == size


def test_a_crop_is_taken_from_the_image_as_it_is_shown() -> None:
    """With orientation 6 what is stored on the left is shown at the top: a box there shows it."""
    stored = scene(400, 200)
    stored.paste(RED, (0, 0, 200, 200))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = encoded(stored, exif=exif)
    page = Image.open(BytesIO(sheet(image, [box(40, 20, 160, 140), box(40, 260, 160, 380)])))
    assert colour_of(page, PANEL / 2, LABEL + PANEL / 2) == "red"
    assert colour_of(page, PANEL + GAP + PANEL / 2, LABEL + PANEL / 2) == "blue"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_images_of_every_kind_of_pixel(mode: str) -> None:
    """Grey, indexed, transparent: all become a sheet."""
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = encoded(Image.new(mode, (60, 40)), kind)
    assert fitting([box(0, 0, 30, 30)], *size_of(image)) == [0]
    assert Image.open(BytesIO(sheet(image, [box(0, 0, 30, 30)]))).mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 500), (3000, 2)])
def test_tiny_images(size: tuple[int, int]) -> None:
    """An image of a pixel or two shows nothing, or what there is, and breaks nothing."""
    whole = box(0, 0, *size)
    fits = min(size) >= 2
    assert fitting([whole], *size) == ([0] if fits else [])
    if fits:
        assert drawn(scene(*size), whole).size == (PANEL, LABEL + PANEL)
