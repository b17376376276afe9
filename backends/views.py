"""Calls whose images are decoded and cut into patches by a thread, so that no answer waits for those of another one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from backends.chat import ChatModel, Prompt
from backends.mailbox import Letter


class View(NamedTuple):
    """A call that came at `asked_s`; `prompts` raise what is wrong with it."""

    letter: Letter
    asked_s: float
    prompts: Future[list[Prompt]]


class Views:
    """Calls with images on their way to the engine, one after the other."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="viewer")
        self._views: list[View] = []

    def __len__(self) -> int:
        return len(self._views)

    def begin(self, letter: Letter, asked_s: float) -> None:
        """Look at the images of a call."""
        self._views.append(View(letter, asked_s, self._thread.submit(prompts_of, self._model, letter)))

    def done(self, *, patience_s: float) -> Sequence[View]:
        """Those that are ready; waits so long for the first of them."""
        futures = [view.prompts for view in self._views]
        ready, _ = wait(futures, timeout=patience_s, return_when=FIRST_COMPLETED)
        done = [view for view in self._views if view.prompts in ready]
        self._views = [view for view in self._views if view.prompts not in ready]
        return done


def prompts_of(model: ChatModel, letter: Letter) -> list[Prompt]:
    """The prompts of a call; none when nobody waits for it any more. Raises `Rejected`."""
    if letter.cancel.is_set():
        return []
    images = [base64.b64decode(image) for image in letter.request.get("images", ())]
    return model.prompts(letter.request["endpoint"], letter.request["body"], images)
