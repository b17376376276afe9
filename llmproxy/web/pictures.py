"""The images of `/api/inference` requests: read, checked, cut into panels. Pillow is imported with the first one."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from backends.images import check_image, sniff
from backends.netguard import Unreadable
from llmproxy.core.errors import InvalidRequest, NotInstalled
from llmproxy.core.types import JsonObject

_MOST_CROPS = 50
_MOST_BYTES = 20 << 20
_MOST_PIXELS = 40_000_000
_LONGEST_LABEL = 100
_FORM = (
    'Answer with one JSON object only: {"description": the scene in words, "entities": a list of what is seen, '
    '"crop_descriptions": a list with one text for each panel, in their order}'
)
# Each image takes up to 4 bytes a pixel while it is decoded.
_DECODERS = ThreadPoolExecutor(2, "vision")

T = TypeVar("T")


class Image(NamedTuple):
    """An image as it was encoded, and its MIME type."""

    kind: str
    data: bytes


async def read_image(given: Any) -> Image:
    """An image in base64 or a data URL; raises `InvalidRequest` for what is none."""
    if not isinstance(given, str) or not given:
        raise InvalidRequest("image_b64 must be an image in base64", param="image_b64")
    try:
        return await _decoding(_checked, given)
    except ImportError as error:
        raise NotInstalled("images need Pillow: pip install 'llmproxy[local]'") from error
    except (Unreadable, ValueError) as error:
        raise InvalidRequest(f"image_b64 is no image: {error}", param="image_b64") from error


def _checked(given: str) -> Image:
    text = given.partition(",")[2] if given.startswith("data:") else given
    if len(text) > _MOST_BYTES * 4 // 3 + 4:
        raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
    data = binascii.a2b_base64(text.translate({ord("-"): "+", ord("_"): "/"}) + "=" * (-len(text) % 4))
    check_image(data, _MOST_PIXELS)
    return Image(sniff(data) or "image/png", data)


async def _decoding(work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_DECODERS, work, *arguments)


async def zoomed(image: Image, crops: list[JsonObject], most: int) -> tuple[Image | None, list[JsonObject]]:
    """(a sheet of numbered panels, what stands on each) of the first `most` crops that show something."""
    sheet, labels = await _decoding(_drawn, image.data, crops, most)
    return (Image("image/jpeg", sheet) if sheet is not None else None), labels


def _drawn(image: bytes, crops: list[JsonObject], most: int) -> tuple[bytes | None, list[JsonObject]]:
    from backends.panels import Box, fitting, sheet, size_of

    boxes = []
    for crop in crops:
        left, top, right, bottom = crop["bbox"]
        boxes.append(Box(left, top, right, bottom, crop["label"]))
    places = fitting(boxes, *size_of(image))[:most]
    labels = [{"panel": number, "crop": place, **crops[place]} for number, place in enumerate(places, 1)]
    return (sheet(image, [boxes[place] for place in places]) if places else None), labels


def read_crops(given: Any) -> list[JsonObject]:
    """The crops as {bbox, label, …}; one whose box has a wrong shape is kept as one that shows nothing."""
    if not isinstance(given, list) or len(given) > _MOST_CROPS:
        raise InvalidRequest(f"crops must be a list of at most {_MOST_CROPS}", param="crops")
    found = []
    for place, crop in enumerate(given):
        if not isinstance(crop, dict):
            raise InvalidRequest("a crop must be an object", param=f"crops.{place}")
        sides = crop.get("bbox", crop.get("xyxy"))
        fits = isinstance(sides, list) and len(sides) == 4 and all(isinstance(side, int | float) for side in sides)
        label = " ".join(str(crop.get("class") or crop.get("label") or "object").split())[:_LONGEST_LABEL]
        told = {name: crop[name] for name in ("confidence", "track_id") if crop.get(name) is not None}
        found.append({"bbox": sides if fits else [0, 0, 0, 0], "label": label, **told})
    return found


def question(prompt: str, labels: list[JsonObject], *, own_form: bool) -> str:
    """What the model is asked of the scene and the panels.

    JSON is asked for by words alone, which every model understands; not where the client has an `own_form`.
    """
    seen = ["There are no panels."]
    if labels:
        seen = ["The first image is the scene. The second shows details of it on numbered panels:"]
        seen += [f"{one['panel']}: {one['label']}{_told(one)}" for one in labels]
    return "\n".join([prompt, *seen, *(() if own_form else (_FORM,))])


def _told(label: Mapping[str, Any]) -> str:
    more = [f"{name} {label[name]}" for name in ("confidence", "track_id") if name in label]
    return f" ({', '.join(more)})" if more else ""


def part(image: Image) -> JsonObject:
    """The image as a part of a chat message."""
    url = f"data:{image.kind};base64,{base64.b64encode(image.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
