"""Questions about images of coloured noise, and engines that answer them, for the tests of models that read images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from backends.base import Cancel, Settings
from backends.chat import Prompt
from backends.engine import Limits
from backends.forward import SlotForward
from backends.parameters import Sampling
from backends.solo import SoloForward
from backends.vision import VisionModel, upright_rgb
from tests.backends.engines import GREEDY, Driver, Heard

Json = dict[str, Any]
IMAGE: Json = {"type": "image_url", "image_url": {"url": ""}}


def settings(folder: Path, **fields: Any) -> Settings:
    """A float32 model."""
    return Settings("eyes", folder, **{"dtype": "float32", **fields})


def picture(seed: int, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    """An image of coloured noise, the same for the same seed."""
    noise = torch.randint(0, 256, (size[1] // 4, size[0] // 4, 3), generator=torch.Generator().manual_seed(seed))
    out = BytesIO()
    Image.fromarray(noise.to(torch.uint8).numpy()).resize(size, Image.Resampling.NEAREST).save(out, kind)
    return out.getvalue()


def message(*parts: str | None, role: str = "user") -> Json:
    """A message of texts, and of images where a part is None."""
    return {"role": role, "content": [IMAGE if part is None else {"type": "text", "text": part} for part in parts]}


def asking(images: int, text: str = "What is this?") -> list[Json]:
    """A question after so many images."""
    return [message(*[None] * images, text)]


class Eyes(Driver):
    """An engine of its own over a model that reads images: in slots, or else row by row."""

    def __init__(
        self, model: VisionModel, limits: Limits | None = None, *, solo: bool = False, budget_tokens: int | None = None
    ) -> None:
        super().__init__(model, limits, budget_tokens=budget_tokens)
        if solo:
            self.forward = self.engine._forward = SoloForward(model.model, "cpu")
        else:
            assert isinstance(self.forward, SlotForward)

    def prompt(self, messages: Sequence[Json], images: Sequence[bytes] = (), **body: Any) -> Prompt:
        """What a request becomes."""
        [prompt] = self.model.prompts("chat", {"messages": messages, **body}, images)
        return prompt

    def ask(
        self,
        messages: Sequence[Json],
        images: Sequence[bytes] = (),
        sampling: Sampling = GREEDY,
        cancel: Cancel | None = None,
    ) -> list[Heard]:
        """Queue the answers to a request."""
        prompt = self.prompt(messages, images)
        job = self.model.job(prompt.ids, sampling, cancel or threading.Event(), sight=prompt.sight)
        rows = list(job.rows)
        self.engine.submit([job])
        self.heard |= {row: Heard(row) for row in rows}
        return [self.heard[row] for row in rows]

    def answer(self, messages: Sequence[Json], images: Sequence[bytes] = (), sampling: Sampling = GREEDY) -> Heard:
        """The answer to a request, once it is there."""
        [heard] = self.ask(messages, images, sampling)
        self.run()
        return heard


def of_the_library(
    model: VisionModel, messages: Sequence[Json], images: Sequence[bytes], count: int = 12, **options: Any
) -> list[int]:
    """What transformers' own processor and `generate` say."""
    [prompt] = model.prompts("chat", {"messages": messages}, images)
    seen = [upright_rgb(image) for image in images]
    inputs = model.processor(text=[prompt.text], images=[seen] if seen else None, return_tensors="pt")
    with torch.inference_mode():
        out = model.model.generate(**inputs, do_sample=False, max_new_tokens=count, **options)
    said: list[int] = out[0, inputs["input_ids"].shape[1] :].tolist()
    return said
