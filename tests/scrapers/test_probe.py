"""What a probe claims, against models that are scripted in the shapes of OpenAI's chat API."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import NoRoom, Refused
from llmproxy.core.types import JsonObject
from scrapers.base import Evidence, NotUnderstood, Rank
from scrapers.probe import SOURCE, Answer, Probeable, due, probe, stamp

MODEL = Probeable("acme", "seer-1")
# As a person would call them; the probe has a table of its own.
PALETTE = {(0, 150, 0): "green", (255, 230, 0): "yellow", (255, 128, 0): "orange", (128, 0, 160): "purple"}


def said(content: Any = "ready", **message: Any) -> Answer:
    message = {"role": "assistant", "content": content, **message}
    return Answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, 0.0)


def refused(status: int, message: str = "no", **more: Any) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "invalid_request_error", **more}})


def called(name: str = "add", arguments: str = '{"a": 2, "b": 3}') -> Answer:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return said(None, tool_calls=[call])


def pixels(png: bytes) -> list[bytes]:
    """The pixels of a PNG with three 8-bit channels and no filters, checked as a decoder would."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data, check = png[at + 8 : at + 8 + size], png[at + 8 + size : at + 12 + size]
        assert struct.unpack(">I", check)[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (8, 2, [0, 0, 0])
    raw, stride = zlib.decompress(chunks[b"IDAT"]), 1 + 3 * width
    assert len(raw) == height * stride
    rows = [raw[start : start + stride] for start in range(0, len(raw), stride)]
    assert all(row[0] == 0 for row in rows)
    return [row[place : place + 3] for row in rows for place in range(1, stride, 3)]


def seen(body: JsonObject) -> str:
    """The name of the one colour of the image in a request."""
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    colours = set(pixels(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert len(colours) == 1
    red, green, blue = colours.pop()
    return PALETTE[red, green, blue]


def kind_of(body: JsonObject) -> str:
    if "tools" in body:
        return "tools"
    if "response_format" in body:
        return "json"
    return "vision" if isinstance(body["messages"][0]["content"], list) else "plain"


def able(body: JsonObject) -> Answer:
    """What a model answers that can do it all."""
    match kind_of(body):
        case "tools":
            return called(body["tools"][0]["function"]["name"])
        case "json":
            return said('{"sum": 5}')
        case "vision":
            return said(seen(body).capitalize() + ".")
        case _:
            return said()


@dataclass
class Scripted:
    """Answers as `able`, but for the kinds of request that `instead` has an answer, or an error, for."""

    instead: dict[str, Answer | Exception] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, model: str, body: JsonObject) -> Answer:
        json.dumps(body)
        kind = kind_of(body)
        self.asked.append((model, kind))
        answer = self.instead.get(kind) or able(body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind in self.asked]


async def claims(ask: Scripted, model: Probeable = MODEL) -> dict[str, Any]:
    """What a probe finds, by field; nothing is claimed twice, of another model, or with a provenance."""
    found = await probe(ask, model)
    assert {(claim.provider, claim.model) for claim in found} <= {(model.provider, model.model)}
    assert {claim.source for claim in found} <= {""}
    values = {claim.field: claim.value for claim in found}
    assert len(values) == len(found)
    return values


async def test_a_model_that_can_do_it_all() -> None:
    """Existence and each capability are claimed after one request each, by the model's full name."""
    ask = Scripted()
    everything = {"exists": True, "capability.tools": True, "capability.json": True, "capability.vision": True}
    assert await claims(ask) == everything
    assert sorted(ask.asked) == [("acme/seer-1", kind) for kind in ("json", "plain", "tools", "vision")]


async def test_only_the_asked_capabilities_are_looked_for() -> None:
    """Other tags cost no request, and unknown ones are left out."""
    ask = Scripted()
    assert await claims(ask, Probeable("acme", "m", frozenset({"json", "speech"}))) == {
        "exists": True,
        "capability.json": True,
    }
    assert ask.kinds == ["plain", "json"]


@pytest.mark.parametrize(
    "answer",
    [
        refused(404, code="model_not_found"),
        refused(404, code="Model_Decommissioned"),
        refused(410, "it was retired"),
        Answer(410, None),
        Answer(404, {"detail": "no such thing"}, retired=True),
        Answer(400, {"error": {"message": "decommissioned"}}, retired=True),
    ],
)
async def test_a_retired_model_is_claimed_to_be_gone(answer: Answer) -> None:
    """An answer that says so is enough, and nothing more is asked."""
    ask = Scripted({"plain": answer})
    assert await claims(ask) == {"exists": False}
    assert ask.kinds == ["plain"]


@pytest.mark.parametrize(
    "answer",
    [
        refused(404),
        refused(404, "No endpoints found matching your data policy."),
        Answer(404, "<html>Not Found</html>"),
        refused(400, code="model_not_found"),
        refused(401, code="invalid_api_key"),
        refused(402),
        refused(403),
        refused(429, code="rate_limit_exceeded"),
        refused(500),
        Answer(503, None),
        Answer(200, None),
        Answer(200, {"error": {"message": "overloaded"}}),
        Answer(200, {"choices": []}),
        Answer(200, {"choices": [{"message": None}]}),
        Answer(200, ["not", "chat"], retired=True),
        said(""),
        said(None, tool_calls=[]),
        TimeoutError(),
        ConnectionResetError(),
        NoRoom("the limit is used up"),
        Refused("slow down", kind="rate_limit", http_status=429),
    ],
)
async def test_anything_else_claims_nothing(answer: Answer | Exception) -> None:
    """What passes, what is unclear and what never came says nothing of the model, and ends the probe."""
    ask = Scripted({"plain": answer})
    assert await claims(ask) == {}
    assert ask.kinds == ["plain"]


@pytest.mark.parametrize("answer", [said(None, reasoning="hm"), said(None, reasoning_content="hm"), called()])
async def test_any_kind_of_answer_shows_that_it_exists(answer: Answer) -> None:
    """A model that thinks, or calls, instead of saying the word is there all the same."""
    assert (await claims(Scripted({"plain": answer})))["exists"] is True


async def test_an_error_of_the_program_is_not_hidden() -> None:
    """Only failures of the network and of the proxy are taken for silence."""
    with pytest.raises(KeyError):
        await probe(Scripted({"plain": KeyError("bug")}), MODEL)


async def test_what_costs_is_not_free() -> None:
    """A cost is claimed, and no more is spent."""
    paid = Answer(200, said().body, 0.00012)
    ask = Scripted({"plain": paid})
    assert await claims(ask) == {"exists": True, "free": "none"}
    assert ask.kinds == ["plain"]
    later = Scripted({"json": Answer(200, said('{"sum": 5}').body, 0.1)})
    assert await claims(later) == {"exists": True, "capability.json": True, "free": "none"}
    assert later.kinds == ["plain", "json"]


@pytest.mark.parametrize("cost_usd", [0.0, None, -1.0, float("nan")])
async def test_no_cost_is_no_claim(cost_usd: float | None) -> None:
    """That an answer cost nothing does not show that the next one will not."""
    assert "free" not in await claims(Scripted({"plain": Answer(200, said().body, cost_usd)}))


@pytest.mark.parametrize(
    "answer",
    [
        said("add(2, 3)"),
        called("subtract"),
        called(arguments='{"a": 2'),
        called(arguments='{"a": 2}'),
        called(arguments='{"a": 2, "b": "3"}'),
        called(arguments='{"a": 2, "b": true}'),
        called(arguments='{"a": 2, "b": 3, "c": 4}'),
        called(arguments="[2, 3]"),
        called(arguments="[" * 5000),
        said(None, tool_calls=[{"function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]),
        said("5", tool_calls={"name": "add"}),
        said("5", tool_calls=["add"]),
    ],
)
async def test_a_wrong_call_shows_nothing(answer: Answer) -> None:
    """Prose, another tool, or arguments that do not fit are neither a yes nor a no."""
    found = await claims(Scripted({"tools": answer}))
    assert "capability.tools" not in found
    assert found["capability.vision"] is True


@pytest.mark.parametrize(
    ("content", "has"),
    [
        ('{"sum": 5}', True),
        (' {"sum": "five", "more": 1}\n', True),
        ([{"type": "text", "text": '{"sum":'}, {"type": "text", "text": " 5}"}], True),
        ('```json\n{"sum": 5}\n```', None),
        ('{"sum": 5', None),
        ('{"total": 5}', None),
        ("[5]", None),
        ("5", None),
        ([{"type": "text", "text": None}, "x"], None),
        (5, None),
    ],
)
async def test_json_is_an_object_with_the_key(content: Any, has: bool | None) -> None:
    """Only content that is such an object, with nothing around it, shows the capability."""
    assert (await claims(Scripted({"json": said(content)}))).get("capability.json") is has


@pytest.mark.parametrize("words", ["It is {}.", "**{}**", "{}"])
async def test_a_colour_is_named_in_any_words(words: str) -> None:
    """The name of the colour alone shows that the image was seen."""

    class Seer(Scripted):
        async def __call__(self, model: str, body: JsonObject) -> Answer:
            return (
                said(words.format(seen(body).upper()))
                if kind_of(body) == "vision"
                else await super().__call__(model, body)
            )

    assert (await claims(Seer()))["capability.vision"] is True


@pytest.mark.parametrize(
    "content", ["I cannot see images.", "black", "green, yellow, orange or purple", "evergreen", "", "red"]
)
async def test_a_guess_shows_nothing(content: str) -> None:
    """No colour, a wrong one, several, or one within another word is no sight."""
    assert "capability.vision" not in await claims(Scripted({"vision": said(content)}))


async def test_not_all_models_are_shown_the_same() -> None:
    """A constant guess is right for some models only, while one model is shown the same each time."""
    shown: dict[str, set[str]] = {}

    class Watch(Scripted):
        async def __call__(self, model: str, body: JsonObject) -> Answer:
            if kind_of(body) == "vision":
                shown.setdefault(model, set()).add(seen(body))
            return able(body)

    for number in [*range(30), *range(30)]:
        await probe(Watch(), Probeable("acme", f"m{number}"))
    assert all(len(colours) == 1 for colours in shown.values())
    assert set.union(*shown.values()) == set(PALETTE.values())


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("tools", refused(400, "`tools` is not supported with this model", param="tools")),
        ("tools", refused(400, "tool calling is not supported with this model")),
        ("tools", refused(422, "Unsupported parameter: 'tools'", code="unsupported_parameter")),
        ("tools", refused(400, "Function calling is not enabled for models/small", code="INVALID_ARGUMENT")),
        ("json", refused(400, "'response_format' is not supported", param="response_format")),
        ("json", refused(400, "JSON mode is not enabled for models/small")),
        ("vision", refused(400, "Image input modality is not enabled for models/small")),
        ("vision", refused(400, "this is not supported", param="messages[0].content[1].image_url")),
    ],
)
async def test_a_refusal_that_names_the_parameter_is_a_no(kind: str, answer: Answer) -> None:
    """The provider's own word that it cannot is claimed, and the other capabilities are still looked at."""
    ask = Scripted({kind: answer})
    found = await claims(ask)
    assert {name: has for name, has in found.items() if has is False} == {f"capability.{kind}": False}
    assert len(found) == 4
    assert len(ask.asked) == 4


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("tools", refused(400, "something is wrong")),
        ("tools", refused(400, "Invalid schema for function 'add'", param="tools[0].function.parameters")),
        ("tools", refused(400, "a key word is not supported", param="tools[0].function.parameters")),
        ("tools", refused(400, "Failed to call a function", code="tool_use_failed")),
        ("tools", refused(400, "'max_tokens' is not supported", param="max_tokens")),
        ("tools", refused(404, "No endpoints found that support tool use")),
        ("tools", refused(501, "tools are not supported", param="tools")),
        ("json", refused(400, "json_object is not supported here, only json_schema", param="response_format")),
        ("json", refused(400, "not this value", param="response_format", code="unsupported_value")),
        ("vision", refused(400, "Image format is not supported: only JPEG images are supported")),
        ("vision", refused(400, "image size is not supported", param="image_url")),
        ("vision", refused(429, "images are not supported at this rate")),
        ("vision", Answer(400, None)),
        ("vision", TimeoutError()),
    ],
)
async def test_any_other_refusal_is_no_no(kind: str, answer: Answer | Exception) -> None:
    """A complaint about something else, or with another status, says nothing of the capability."""
    found = await claims(Scripted({kind: answer}))
    assert f"capability.{kind}" not in found
    assert False not in found.values()


@pytest.mark.parametrize("answer", [refused(429), refused(503), refused(401), NoRoom("no room")])
async def test_a_provider_that_has_enough_is_left_alone(answer: Answer | Exception) -> None:
    """After a refusal for other reasons than the request no further one is sent; what was found stays."""
    ask = Scripted({"json": answer})
    assert await claims(ask) == {"exists": True}
    assert ask.kinds == ["plain", "json"]


def test_claims_are_stamped() -> None:
    """Stamped claims are observations of the probe, dated, and with a hash of what was found."""
    bare = [Evidence("acme", "m", "exists", True), Evidence("acme", "m", "capability.json", False)]
    found = stamp(bare, seen_at_s=7.0)
    assert [(claim.source, claim.rank, claim.confidence, claim.seen_at_s) for claim in found] == [
        ("probe", Rank.OBSERVED, 0.98, 7.0)
    ] * 2
    assert found[0].content_hash == stamp(bare, seen_at_s=8.0)[0].content_hash != ""
    assert found[0].content_hash != stamp(bare[:1], seen_at_s=7.0)[0].content_hash
    with pytest.raises(NotUnderstood):
        SOURCE.read(b"{}", seen_at_s=7.0)


def names(models: list[Probeable]) -> list[str]:
    return [model.name for model in models]


def models(*full: str) -> list[Probeable]:
    return [Probeable(provider, model) for provider, _, model in (name.partition("/") for name in full)]


def test_the_unknown_come_first_then_the_oldest() -> None:
    """Never probed before probed long ago, before probed lately; what is fresh is left out."""
    known = models("a/fresh", "a/old", "a/older", "a/new")
    at_s = {"a/fresh": 950.0, "a/old": 500.0, "a/older": 400.0}
    assert names(due(known, at_s, 1000.0, per_run=9, every_s=100.0)) == ["a/new", "a/older", "a/old"]
    assert names(due(known, at_s, 1000.0, per_run=2, every_s=100.0)) == ["a/new", "a/older"]
    assert due(known, at_s, 1000.0, per_run=0, every_s=100.0) == []
    assert due(known, at_s, 1000.0, per_run=-1, every_s=100.0) == []


def test_a_run_is_spread_over_providers() -> None:
    """Providers take turns, so that one with many models does not use the run up."""
    known = models("a/1", "a/2", "a/3", "b/1", "b/2", "c/1")
    assert names(due(known, {}, 0.0, per_run=6, every_s=1.0)) == ["a/1", "b/1", "c/1", "a/2", "b/2", "a/3"]


def test_a_model_is_due_again_at_its_time() -> None:
    """`every_s` after a probe it is due, not before; a probe dated in the future does not count."""
    known = models("a/1")
    assert due(known, {"a/1": 0.0}, 99.0, per_run=1, every_s=100.0) == []
    assert due(known, {"a/1": 0.0}, 100.0, per_run=1, every_s=100.0) == known
    assert due(known, {"a/1": 500.0}, 100.0, per_run=1, every_s=100.0) == known


def test_small_runs_come_round_to_every_provider() -> None:
    """With one probe a run, each of three providers is served within three runs, and all models in the end."""
    known = models(*(f"a/{number}" for number in range(20)), "b/1", "b/2", "c/1")
    at_s: dict[str, float] = {}
    order: list[str] = []
    for run in range(23):
        (chosen,) = due(known, at_s, float(run), per_run=1, every_s=1000.0)
        at_s[chosen.name] = float(run)
        order.append(chosen.name)
    assert {name[0] for name in order[:3]} == {"a", "b", "c"}
    assert sorted(order) == sorted(model.name for model in known)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123456"))),
    st.dictionaries(st.sampled_from([f"{p}/{m}" for p in "abc" for m in "123456"]), st.floats(0, 1000)),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_the_order_depends_on_nothing_but_its_input(
    pairs: list[tuple[str, str]], at_s: dict[str, float], per_run: int, random: Any
) -> None:
    """Whatever the order of the models, the same are chosen, each once, and none that is fresh."""
    known = [Probeable(*pair) for pair in pairs]
    chosen = due(known, at_s, 1000.0, per_run=per_run, every_s=300.0)
    random.shuffle(known)
    assert due(known, at_s, 1000.0, per_run=per_run, every_s=300.0) == chosen
    old = {model.name for model in known if at_s.get(model.name, 0.0) <= 700.0}
    assert len(set(names(chosen))) == len(chosen) == min(per_run, len(old))
    assert set(names(chosen)) <= old
    assert [name in at_s for name in names(chosen)] == sorted(name in at_s for name in names(chosen))
