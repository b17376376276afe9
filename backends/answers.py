"""Calls of the chat engine: requests become rows, and what becomes of the rows is written as answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from backends.base import Rejected
from backends.chat import ChatModel, Prompt
from backends.engine import Engine, Event, Limits
from backends.figures import Figures
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.parameters import Sampling
from backends.reading import Reading
from backends.render import TokenLogprob, renderer
from backends.rows import End, Piece, Row
from backends.runner import Letters, Replies, refusal
from backends.views import Views, prompts_of
from llmproxy.core.types import JsonObject

_log = logging.getLogger(__name__)

# For how long the calls that come meanwhile are not looked at.
_MOMENT_S = 0.01


class Answer:
    """One call: a renderer for all its rows, and what is known of each of them."""

    def __init__(self, letter: Letter, model: ChatModel, name: str, prompts: list[Prompt]) -> None:
        """`prompts` are those of the letter. Raises `Rejected` for what the model cannot answer."""
        request, body = letter.request, letter.request["body"]
        self.call, self.cancel = letter.call, letter.cancel
        self._model = model
        is_chat = request["endpoint"] == "chat"
        sampling, structure = _sampling(request["sampling"]), model.structure(body) if is_chat else None
        self.jobs = [
            model.job(
                prompt.ids,
                sampling,
                letter.cancel,
                owner=self,
                first_index=place * sampling.n,
                tools=is_chat and bool(body.get("tools")),
                constraint=model.constraint(structure) if structure is not None else None,
                sight=prompt.sight,
            )
            for place, prompt in enumerate(prompts)
        ]
        self._out = renderer(request["endpoint"], stream=request["stream"], call_id=request["id"], model=name)
        self._readings = [
            model.reading(body, prompt, structure) if is_chat else Reading()
            for prompt in prompts
            for _ in range(sampling.n)
        ]
        self._firsts = [job.rows[0] for job in self.jobs]
        self.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        self.completion_tokens = self._reasoning_tokens = 0
        self._left = len(self._readings)
        self._begun: set[int] = set()
        self.is_closed = False
        self.asked_s = 0.0
        self.heard_s: float | None = None  # when its first text was there

    def hear(self, row: Row, what: Piece | End) -> Iterator[bytes]:
        """What goes out for it; the last of it once all rows have ended: then it `is_over`."""
        index, reading = row.index, self._readings[row.index]
        if isinstance(what, Piece):
            logprobs, thinking = self._logprobs(what), reading.thinking
            for said in reading.feed(what.text):
                yield self._out.say(index, said, logprobs if isinstance(said, str) else ())
                logprobs = () if isinstance(said, str) else logprobs
                self._begun.add(index)
            self._reasoning_tokens += what.count if thinking or reading.thinking else 0
            return
        for said in reading.end():
            yield self._out.say(index, said, ())
            self._begun.add(index)
        if index not in self._begun:
            yield self._out.say(index, "", ())
        yield self._out.finish(index, what.reason)
        self.completion_tokens += what.completion_tokens
        self._left -= 1
        if self.is_over:
            yield self._out.end(
                self.prompt_tokens,
                self.completion_tokens,
                cached_tokens=self.cached_tokens,
                reasoning_tokens=self._reasoning_tokens,
            )

    @property
    def is_read(self) -> bool:
        """Whether its prompt has had its turn."""
        return any(first.cached_tokens is not None for first in self._firsts)

    @property
    def cached_tokens(self) -> int:
        """Tokens of its prompts that had been read for others."""
        return sum(first.cached_tokens or 0 for first in self._firsts)

    @property
    def is_over(self) -> bool:
        """Whether all rows have ended."""
        return self._left == 0

    def _logprobs(self, piece: Piece) -> tuple[TokenLogprob, ...]:
        return tuple(
            (text, drawn.logprob or 0.0, [(self._model.tokenizer.decode([token]), value) for token, value in drawn.top])
            for text, drawn in piece.tokens
        )


class ChatRunner:
    """Answers all calls at once, row by row (`backends.runner.Runner`)."""

    def __init__(self, model: ChatModel, name: str, limits: Limits | None = None) -> None:
        self._model, self._name = model, name
        self._engine = Engine(model.forward, limits)
        self._figures = Figures()
        self._unbegun: list[Answer] = []
        self._views = Views(model)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._engine.idle and not self._views

    @property
    def waiting(self) -> int:
        """How many answers have not begun; of a call whose images are looked at, one."""
        return self._engine.waiting + len(self._views)

    def run(self, mailbox: Letters, outbox: Replies) -> None:
        """Answer calls for ever."""
        while True:
            frames = [frame for letter in mailbox.take(wait=self.idle) for frame in self.begin(letter)]
            frames += self.step()
            outbox.put(frames)
            for frame in frames:
                if frame.kind is not Kind.DATA:
                    mailbox.ended(frame.call)
            outbox.put(self._figures.frames(last=self.idle, waiting=self.waiting))

    def begin(self, letter: Letter) -> list[Frame]:
        """Queue a call, once its images were looked at; its error where it cannot be."""
        asked_s = self._figures.now()
        if not letter.request.get("images"):
            return self._queue(letter, asked_s, lambda: prompts_of(self._model, letter))
        try:
            self._engine.check(1, before=len(self._views))
        except Rejected as error:
            return [self._refusal(letter.call, error)]
        self._views.begin(letter, asked_s)
        return []

    def _queue(self, letter: Letter, asked_s: float, prompts: Callable[[], list[Prompt]]) -> list[Frame]:
        if letter.cancel.is_set():
            return [Frame(Kind.DONE, letter.call)]
        try:
            answer = Answer(letter, self._model, self._name, prompts())
            self._engine.submit(answer.jobs)
            answer.asked_s = asked_s
            self._unbegun.append(answer)
        except Exception as error:  # one bad call must not end the model for all others
            return [self._refusal(letter.call, error)]
        return []

    def step(self) -> list[Frame]:
        """What one step of the engine has to say, with the calls whose images were looked at meanwhile."""
        frames = self._viewed()
        try:
            events = self._engine.step()
        except Exception as error:  # as above: what waits may be better
            _log.exception("%s failed", self._name)
            events = self._engine.fail(error)
        frames += [frame for event in events for frame in self._frames(event)]
        self._count()
        return frames

    def _viewed(self) -> list[Frame]:
        """Queue the calls whose images were looked at; wait a moment for one where nothing else is to be done."""
        if not self._views:
            return []
        views = self._views.done(patience_s=_MOMENT_S if self._engine.idle else 0.0)
        return [frame for view in views for frame in self._queue(view.letter, view.asked_s, view.prompts.result)]

    def _count(self) -> None:
        """What a step was: how many rows were decoded together, and whose prompts had their turn."""
        if self._engine.decoding:
            self._figures.observe("batch_rows", self._engine.decoding)
        for answer in [answer for answer in self._unbegun if answer.is_closed or answer.is_read]:
            self._unbegun.remove(answer)
            self._figures.observe("queue_seconds", self._figures.now() - answer.asked_s)

    def _frames(self, event: Event) -> list[Frame]:
        answer, what = event.row.owner, event.what
        assert isinstance(answer, Answer)
        if answer.is_closed:
            return []
        if isinstance(what, End) and what.reason == "cancelled":
            answer.is_closed = True
            return [Frame(Kind.DONE, answer.call)]
        try:
            if isinstance(what, Exception):
                raise what
            frames = [Frame(Kind.DATA, answer.call, data) for data in answer.hear(event.row, what) if data]
            if answer.heard_s is None:
                answer.heard_s = self._figures.now()
                self._figures.observe("first_token_seconds", answer.heard_s - answer.asked_s)
        except Exception as error:  # as above
            answer.is_closed = True
            answer.cancel.set()  # its other rows go with the next step
            return [self._refusal(answer.call, error)]
        if answer.is_over:
            answer.is_closed = True
            self._count_answer(answer)
            frames.append(Frame(Kind.DONE, answer.call))
        return frames

    def _count_answer(self, answer: Answer) -> None:
        figures = self._figures
        figures.count("prompt_tokens", answer.prompt_tokens)
        figures.count("cached_tokens", answer.cached_tokens)
        figures.count("completion_tokens", answer.completion_tokens)
        figures.observe("cached_share", answer.cached_tokens / answer.prompt_tokens)
        took_s = figures.now() - answer.heard_s if answer.heard_s is not None else 0.0
        if took_s and answer.completion_tokens > 1:
            figures.observe("tokens_per_second", (answer.completion_tokens - 1) / took_s)

    def _refusal(self, call: int, error: Exception) -> Frame:
        if not isinstance(error, Rejected):
            _log.error("a call of %s failed", self._name, exc_info=error)
        return refusal(call, error)


def _sampling(fields: JsonObject) -> Sampling:
    """Sampling as it came in JSON, where all keys are texts and all sequences lists."""
    bias = {int(token): value for token, value in fields["logit_bias"].items()}
    return Sampling(**{**fields, "stop": tuple(fields["stop"]), "logit_bias": bias})
