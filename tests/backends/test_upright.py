"""Images as they are meant to be seen: the right way up, in red, green and blue, on white."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from backends.vision import upright_rgb

ORIENTATION = 0x0112
RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def halves(mode: str, left: Any, right: Any, size: tuple[int, int] = (40, 20)) -> Image.Image:
    """An image of two colours, side by side."""
    image = Image.new(mode, size)
    for x in range(size[0]):
        for y in range(size[1]):
            image.putpixel((x, y), left if x < size[0] // 2 else right)
    return image


@pytest.mark.parametrize(
    ("orientation", "size", "red"),
    [
        (1, (40, 20), "left"),
        (2, (40, 20), "right"),
        (3, (40, 20), "right"),
        (6, (20, 40), "top"),
        (8, (20, 40), "bottom"),
    ],
)
def test_photos_are_turned(orientation: int, size: tuple[int, int], red: str) -> None:
    """A photo is seen as the camera was held."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = upright_rgb(saved(halves("RGB", RED, BLUE), "JPEG", exif=exif, quality=95))
    assert image.size == size
    places = {"left": (2, size[1] // 2), "right": (size[0] - 3, size[1] // 2)}
    places |= {"top": (size[0] // 2, 2), "bottom": (size[0] // 2, size[1] - 3)}
    pixel = image.getpixel(places[red])
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200 > 50 > pixel[2]


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (halves("RGBA", (0, 0, 0, 0), (0, 0, 255, 255)), (255, 255, 255), (0, 0, 255)),
        (halves("RGBA", (255, 0, 0, 128), (0, 0, 0, 255)), (255, 127, 127), (0, 0, 0)),
        (halves("LA", (0, 0), (60, 255)), (255, 255, 255), (60, 60, 60)),
        (halves("L", 10, 200), (10, 10, 10), (200, 200, 200)),
        (halves("1", 0, 1), (0, 0, 0), (255, 255, 255)),
        (halves("I;16", 0x4000, 0xFF00), (64, 64, 64), (255, 255, 255)),
        (halves("P", 0, 1), (0, 0, 0), (0, 0, 0)),
    ],
    ids=["clear", "half clear", "grey and clear", "grey", "black and white", "16 bits", "palette"],
)
def test_all_kinds_of_pixels(image: Image.Image, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Every kind of pixel becomes red, green and blue; what is transparent is white."""
    if image.mode == "P":
        image.putpalette([12, 34, 56, 200, 100, 0])
        left, right = (255, 255, 255), (200, 100, 0)
        data = saved(image, transparency=0)
    else:
        data = saved(image)
    seen = upright_rgb(data)
    assert (seen.mode, seen.size) == ("RGB", (40, 20))
    assert (seen.getpixel((5, 10)), seen.getpixel((35, 10))) == (left, right)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_other_files(kind: str) -> None:
    """Other formats are seen as well."""
    assert upright_rgb(saved(halves("RGB", RED, BLUE), kind)).size == (40, 20)


def test_the_first_frame() -> None:
    """Of a moving image the first frame is seen."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert upright_rgb(data).getpixel((4, 4)) == (255, 0, 0)
