"""A client that waits sees signs of life; a source that trickles is left."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from llmproxy.core.errors import AllCandidatesFailed, Refused, TimedOut
from llmproxy.gateway.attempt import Pace, Waits
from llmproxy.gateway.dispatch import Settings
from tests.gateway.scripted import Sink, Source, Step, World, event, says

SIGN = b": still waiting\n\n"
WAITING = Settings(Waits(life_sign_s=0.03))
DEAD = Refused("no", kind="server", http_status=500)


async def test_a_slow_candidate_does_not_leave_the_client_alone() -> None:
    """Comments come until the first piece; who answers is told at the end, since the head could not."""
    world = World(Source({"slow": says("yes", after=0.2)}), WAITING)
    _, sink = await world.ask()
    assert sink.heads[0].candidate is None
    assert sink.pieces[0] == SIGN
    assert 2 <= sink.pieces.count(SIGN) <= 6
    assert sink.text == "yes"
    assert sink.pieces[-1].startswith(b": trail s/slow:ok 0.")
    assert sink.pieces[-1].endswith(b"data: [DONE]\n\n")


async def test_a_quick_answer_has_no_comment() -> None:
    """Nothing but the answer, and its head names the candidate."""
    world = World(Source({"quick": says("yes")}), WAITING)
    _, sink = await world.ask()
    assert b": " not in sink.got.replace(b"data: ", b"")
    assert sink.heads[0].candidate is not None


async def test_a_gap_in_the_answer_is_bridged() -> None:
    """A long silence between two pieces too, and no sign follows the end."""
    script: list[Step] = [event("one"), 0.15, event(" two"), event(None, "stop")]
    world = World(Source({"m": script}), WAITING)
    _, sink = await world.ask()
    assert SIGN in sink.pieces
    assert sink.text == "one two"
    last = len(sink.pieces)
    await asyncio.sleep(0.1)
    assert len(sink.pieces) == last


async def test_an_answer_that_is_held_keeps_the_client_waiting_happily() -> None:
    """`delivery: whole`: nothing but comments before the end, then all of it at once."""
    script: list[Step] = [event("one"), 0.1, event(" two"), 0.1, event(None, "stop")]
    world = World(Source({"m": script}), WAITING)
    _, sink = await world.ask(hold=True)
    assert set(sink.pieces[:-1]) == {SIGN}
    assert sink.text == "one two"


async def test_failover_goes_on_behind_the_comments() -> None:
    """An open stream without content is no commit: the next candidate begins afresh."""
    world = World(Source({"a": [0.1, DEAD], "b": [event("lost"), 0.1, DEAD], "c": says("yes")}), WAITING)
    answer, sink = await world.ask(hold=True)
    assert sink.text == "yes"
    assert [made.outcome for made in answer.attempts] == ["500", "500", "ok"]
    assert b": trail s/a:500" in sink.pieces[-1]


async def test_an_error_after_the_comments_is_an_event() -> None:
    """The status is gone by then: one error event with the code and the attempts of the JSON error, and the end."""
    world = World(Source({"a": [0.1, DEAD], "b": [DEAD]}), WAITING)
    sink = Sink()
    with pytest.raises(AllCandidatesFailed):
        await world.ask(sink=sink)
    [*signs, last] = sink.pieces
    assert set(signs) == {SIGN}
    told, end, _ = last.split(b"\n\n")
    error = orjson.loads(told.removeprefix(b"data: "))["error"]
    assert (error["code"], len(error["attempts"]), end) == ("all_candidates_failed", 2, b"data: [DONE]")
    assert sink.ended


async def test_a_whole_reply_is_not_opened_early() -> None:
    """Without streaming there is nothing to write a comment into: the client has a status at the end."""
    world = World(Source({"a": says("yes", after=0.1)}), WAITING)
    answer, sink = await world.ask(stream=False)
    assert answer.reply is not None
    assert not sink.heads


async def test_a_client_that_left_ends_the_signs() -> None:
    """Cancelled, nothing is written any more and no task is left."""
    world = World(Source({"a": says("yes", after=30)}), WAITING)
    sink, before = Sink(), asyncio.all_tasks()
    task = asyncio.ensure_future(world.ask(sink=sink))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    written = len(sink.pieces)
    await asyncio.sleep(0.1)
    assert len(sink.pieces) == written
    assert asyncio.all_tasks() == before


# -- trickles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        pytest.param([(1.0, 4)] * 30, False, id="fast enough"),
        pytest.param([(1.0, 3)] * 30, True, id="a little too slow"),
        pytest.param([(9.0, 200), (0.5, 1)] * 5, False, id="few large pieces"),
        pytest.param([(5.0, 40), (5.0, 0), (5.0, 1), (5.0, 1)], True, id="slow later on"),
        pytest.param([(0.0, 0)] * 1000, False, id="no time passes"),
    ],
)
def test_pace(pieces: list[tuple[float, int]], left: bool) -> None:
    """One token (four characters) a second, over ten seconds of waiting."""
    pace = Pace(1.0, 10.0)
    if left:
        with pytest.raises(TimedOut) as raised:
            [pace.piece(*piece) for piece in pieces]
        assert raised.value.outcome == "trickle"
    else:
        assert [pace.piece(*piece) for piece in pieces]


def test_no_pace_is_too_slow_when_it_is_not_asked_for() -> None:
    """0 tokens a second: everything is fast enough."""
    assert Pace(0.0, 1.0).piece(1000.0, 0) is None


async def test_a_trickle_is_taken_over() -> None:
    """A stream that drips is left after two stall timeouts, and the next candidate finishes the sentence."""
    drips: list[Step] = [step for word in ["one", *[" x"] * 200] for step in (event(word), 0.02)]
    words = "one" + " x" * 200 + " end"
    waits = Waits(stall_s=0.1, slowest_tokens_s=1000.0)
    world = World(Source({"drips": drips, "flows": says(words)}), Settings(waits))
    answer, sink = await world.ask()
    assert [made.outcome for made in answer.attempts] == ["trickle", "ok"]
    assert sink.text == words


async def test_a_slow_local_model_is_waited_for() -> None:
    """It is as fast as this machine; there may be nobody faster."""
    drips: list[Step] = [step for word in ["one", *[" x"] * 10] for step in (event(word), 0.03)]
    waits = Waits(stall_s=0.1, slowest_tokens_s=1000.0)
    world = World(Source({"m": [*drips, event(None, "stop")]}), Settings(waits), {"m": {"local": True}})
    answer, _ = await world.ask()
    assert len(answer.attempts) == 1


async def test_a_long_tool_call_is_progress() -> None:
    """Arguments that take longer than the first-token timeout are not silence, though none of them goes out yet."""

    def fragment(**function: str) -> bytes:
        return event(tool_calls=[{"index": 0, "id": "c", "function": function}])

    script: list[Step] = [fragment(name="f", arguments='{"a": "')]
    for _ in range(8):
        script += [0.04, fragment(arguments="xxxx")]
    script += [fragment(arguments='"}'), event(None, "tool_calls")]
    world = World(Source({"m": script}), Settings(Waits(first_token_s=0.15, stall_s=0.15)))
    answer, sink = await world.ask()
    assert len(answer.attempts) == 1
    assert b"x" * 32 in sink.got


async def test_comments_of_an_upstream_are_not_progress() -> None:
    """A provider that only says that it is processing is left after the stall timeout."""
    script: list[Step] = [event("one"), *[step for _ in range(40) for step in (0.02, b": PROCESSING\n\n")]]
    world = World(Source({"m": script, "n": says("one two")}), Settings(Waits(stall_s=0.15)))
    answer, sink = await world.ask()
    assert [made.outcome for made in answer.attempts] == ["stall_timeout", "ok"]
    assert sink.text == "one two"
