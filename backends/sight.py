"""What a prompt shows besides its text: where its images are, what the model is given for them, where text goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The tokens of a prompt from `begin` to `end`, which stand for images, and the `inputs` of these alone."""

    begin: int
    end: int
    inputs: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """The images of one prompt. All tensors are in the memory of the CPU until a forward pass needs them.

    `inputs` is what the model takes for the whole prompt, `input_ids` (1, seq) among it; `seen` are its images in their
    order, none where nobody knows which tokens stand for them; `token` is the id of those tokens. Models with rotary
    positions in three dimensions have `positions` (3, seq), and what follows the prompt in column i has the position
    i + `offset`.
    """

    inputs: Mapping[str, torch.Tensor]
    seen: Sequence[Seen] = ()
    token: int = 0
    positions: torch.Tensor | None = None
    offset: int = 0

    @property
    def tokens(self) -> int:
        """How long the prompt is."""
        return int(self.inputs["input_ids"].shape[1])

    def whole(self) -> dict[str, torch.Tensor]:
        """What the model takes for all of the prompt."""
        positions = self.positions_of(0, self.tokens)
        return {**self.inputs, **({} if positions is None else {"position_ids": positions})}

    def outside(self, tokens: int) -> int:
        """The most of so many tokens that does not end inside of an image."""
        return next((one.begin for one in self.seen if one.begin < tokens < one.end), tokens)

    def stop(self, begin: int, end: int) -> int:
        """Where to stop reading from `begin` on, which is no place inside of an image, instead of at `end`."""
        cut = next((one for one in self.seen if one.begin < end < one.end), None)
        if cut is None:
            return end
        return cut.begin if cut.begin > begin else cut.end

    def inputs_of(self, begin: int, end: int) -> dict[str, torch.Tensor]:
        """What the model takes for the images between two places."""
        found = [one.inputs for one in self.seen if begin <= one.begin < end]
        return {name: torch.cat([inputs[name] for inputs in found]) for name in found[0]} if found else {}

    def positions_of(self, begin: int, end: int) -> torch.Tensor | None:
        """The positions (3, 1, end - begin) of what is in these columns, of the prompt or after it."""
        if self.positions is None:
            return None
        after = torch.arange(max(begin, self.tokens), max(end, self.tokens)) + self.offset
        return torch.cat([self.positions[:, begin:end], after.expand(3, -1)], dim=1)[:, None]

    def read_as(self, ids: Sequence[int]) -> list[int]:
        """`ids` as the model knows them: with the token of images where they tell what is shown."""
        return [self.token if token < 0 else token for token in ids]


def shown(images: Sequence[bytes]) -> int:
    """The id, of no vocabulary, that stands for each token of some images: the same one for the same images alone."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(hashlib.sha256(image).digest())
    return -1 - int.from_bytes(digest.digest()[:_DIGEST_BYTES])
