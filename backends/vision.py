"""Chat models that read images (Qwen3-VL and others): their processor, their prompts. In worker processes only."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from backends.base import Rejected, Settings
from backends.chat import ChatModel, Loaded, Prompt
from backends.forward import Forward
from backends.quantization import load_model
from backends.sight import Seen, Sight, shown
from backends.templates import for_template
from backends.ways import Example, forward_of
from llmproxy.core.types import JsonObject

_log = logging.getLogger(__name__)

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# What processors call the texts that they replace by images, videos and audio.
_MARKS = ("image_token", "video_token", "audio_token", "boi_token")
# What processors tell of each token, and not of the images.
_OF_TOKENS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids"})
_PATCHES, _GRID = "pixel_values", "image_grid_thw"


class VisionModel(ChatModel):
    """A chat model whose messages may hold images. Raises whatever keeps the model from loading."""

    def _load(self, settings: Settings, dtype: torch.dtype) -> Loaded:
        options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
        self.processor = _processor(settings.folder, options)
        model = load_model(AutoModelForImageTextToText, settings, dtype, **options)
        self._image_token = _image_token(self.processor, model.config)
        self._merged = int(getattr(self.processor.image_processor, "merge_size", 1))
        tokenizer = self.processor.tokenizer
        return Loaded(model, tokenizer, self.processor if self.processor.chat_template else tokenizer)

    def _way(self) -> Forward:
        return forward_of(self.model, self.device, self._example())

    def _example(self) -> Example | None:
        """A small image between two texts; None where the chat template has no place for images."""
        content = [{"type": "text", "text": "What"}, {"type": "image_url"}, {"type": "text", "text": "is this?"}]
        file = BytesIO()
        Image.linear_gradient("L").resize((96, 64)).save(file, "PNG")
        try:
            prompt = self._chat_prompt({"messages": [{"role": "user", "content": content}]}, [file.getvalue()])
        except Rejected as error:
            _log.info("%s can be shown no images: %s", type(self.model).__name__, error)
            return None
        return None if prompt.sight is None else Example(prompt.ids, prompt.sight)

    # -- prompts ------------------------------------------------------------------------------------------------------

    def _chat_prompt(self, body: JsonObject, images: Sequence[bytes]) -> Prompt:
        """Write messages and tools by the chat template; the processor makes room for the images."""
        messages = for_template(body["messages"], vision=True, template=self.template)
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        wanted = sum(part["type"] == "image" for part in parts)
        if wanted != len(images):
            raise ValueError(f"{len(images)} images came with {wanted} image_url parts")
        self._check_marks([messages, *map(_joined, messages), body.get("tools"), body.get("chat_template_kwargs")])
        text = self._written(body, messages)
        return self._seeing_prompt(text, images) if images else self._text_prompt(text)

    def _check_marks(self, given: object) -> None:
        """A client that writes a model's mark of an image into its text would move the images to other places."""
        text = json.dumps(given, ensure_ascii=False)
        for name in _MARKS:
            mark = getattr(self.processor, name, None)
            if isinstance(mark, str) and mark in text:
                raise _invalid(f"the messages and tools must not hold {mark}, which stands for an image in this model")

    def _seeing_prompt(self, text: str, images: Sequence[bytes]) -> Prompt:
        pictures = [upright_rgb(data, place) for place, data in enumerate(images)]
        try:
            made = self.processor(text=[text], images=[pictures], add_special_tokens=False, return_tensors="pt")
        except ValueError as error:  # such as: an image that is 200 times as long as it is wide
            raise _invalid(f"the processor of this model refuses the images: {error}") from error
        inputs: dict[str, torch.Tensor] = dict(made.to(dtype=self.model.dtype))
        ids: list[int] = inputs["input_ids"][0].tolist()
        places = [place for place, token in enumerate(ids) if token == self._image_token]
        seen = list(_seen(inputs, places, self._merged)) if places else []
        apart = len(seen) == len(images)
        for place, one in enumerate(seen):
            told = shown([images[place]] if apart else images)
            part = ids[one.begin : one.end]
            ids[one.begin : one.end] = [told if token == self._image_token else token for token in part]
        positions, offset = self._positions(inputs)
        return Prompt(ids, text, Sight(inputs, seen, self._image_token, positions, offset))

    def _positions(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor | None, int]:
        """The positions (3, seq) of a prompt in three dimensions, for the models that have them, and how text goes on.

        Such a model would else keep them in itself, and take those of the request before for one without images.
        """
        index = getattr(self.model.base_model, "get_rope_index", None)
        if index is None:
            return None, 0
        ids = inputs["input_ids"]
        kinds = inputs.get("mm_token_type_ids", (ids == self._image_token).int())
        positions, deltas = index(ids, mm_token_type_ids=kinds, image_grid_thw=inputs.get(_GRID))
        return positions[:, 0], int(deltas[0])


def _joined(message: JsonObject) -> str:
    """The texts of a message as most templates write them: without anything between two that are beside each other."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "\n") for part in content)


def _seen(inputs: Mapping[str, torch.Tensor], places: Sequence[int], merged: int) -> Iterator[Seen]:
    """The images of a prompt, whose tokens are at `places`: each by itself where their inputs can be told apart."""
    given = {name: tensor for name, tensor in inputs.items() if name not in _OF_TOKENS}
    patches = given[_GRID].prod(-1).tolist() if set(given) == {_PATCHES, _GRID} else []
    counts = [count // merged**2 for count in patches]
    if not patches or sum(counts) != len(places):
        yield Seen(places[0], places[-1] + 1, given)
        return
    begin = 0
    for count, pixels, grid in zip(counts, given[_PATCHES].split(patches), given[_GRID].split(1), strict=True):
        yield Seen(places[begin], places[begin + count - 1] + 1, {_PATCHES: pixels, _GRID: grid})
        begin += count


def _processor(folder: Path, options: Mapping[str, Any]) -> Any:
    """The processor of a model without its part for videos, which needs torchvision even where it is not used."""
    known: Any = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(folder, **options)), None)
    if known is None or "video_processor" not in known.get_attributes():
        return AutoProcessor.from_pretrained(folder, **options)

    class WithoutVideos(known):
        # The arguments tell transformers what parts there are.
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

    return WithoutVideos.from_pretrained(folder, **options)


def _image_token(processor: Any, config: Any) -> int:
    """The id of the tokens that stand for an image in a prompt; one that no prompt has where nobody tells it."""
    told = (getattr(config, "image_token_id", None), getattr(processor, "image_token_id", None))
    return next((token for token in told if isinstance(token, int)), -1)


def upright_rgb(data: bytes, place: int = 0) -> Image.Image:
    """The first frame of an encoded image as it is meant to be seen: turned as its EXIF says, and on white.

    Raises `Rejected` when it cannot be decoded; `place` counts the request's images from 0.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as opened:
            image = ImageOps.exif_transpose(opened)
    except Exception as error:  # decoders raise whatever they like, about what a client sent
        raise _invalid(f"image {place + 1} cannot be decoded") from error
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, "white")
        seen.alpha_composite(image.convert("RGBA"))
        return seen.convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey; a plain conversion would cut off at 255
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")


def _invalid(message: str, param: str | None = "messages") -> Rejected:
    return Rejected(message, kind="invalid", code="invalid_request", param=param)
