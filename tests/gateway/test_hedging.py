"""`routing.hedge_after`: a second candidate is asked when the first has delivered nothing, and one of them wins."""

from __future__ import annotations

import asyncio

import pytest

from llmproxy.core.errors import AllCandidatesFailed, Refused, Truncated
from llmproxy.gateway.attempt import Waits
from llmproxy.gateway.dispatch import Settings
from tests.gateway.scripted import Sink, Source, World, event, says

HEDGED = Settings(Waits(hedge_s=0.03))
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both_ways
async def test_the_second_one_wins(stream: bool) -> None:
    """A slow first candidate is stopped as soon as the second has output; the trail says so."""
    world = World(Source({"slow": says("no", after=30), "fast": says("yes")}), HEDGED)
    answer, sink = await asyncio.wait_for(world.ask(stream=stream), 5)
    assert answer.candidate.model.id == "fast"
    assert [(made.model, made.outcome) for made in answer.attempts] == (
        [("s/slow", "cancelled"), ("s/fast", "ok")] if stream else [("s/fast", "ok"), ("s/slow", "cancelled")]
    )
    assert world.source.stopped == ["slow"]
    if stream:
        assert (sink.text, len(sink.heads), sink.ended) == ("yes", 1, True)
    else:
        assert answer.reply is not None
        assert answer.reply.body["choices"][0]["message"]["content"] == "yes"


@both_ways
async def test_the_first_one_wins_though_late(stream: bool) -> None:
    """The second was asked too, and is stopped: nothing of it reaches the client, and it costs it no health."""
    world = World(Source({"late": says("yes", after=0.1), "later": says("no", after=30)}), HEDGED)
    answer, sink = await asyncio.wait_for(world.ask(stream=stream), 5)
    assert answer.candidate.model.id == "late"
    assert world.source.asked == ["late", "later"]
    assert world.source.stopped == ["later"]
    assert sink.text == ("yes" if stream else "")
    assert world.dispatcher.health.spotless


@both_ways
async def test_one_that_delivers_in_time_is_asked_alone(stream: bool) -> None:
    """No second request while the first candidate is quick, however long its answer takes after the first piece."""
    script = [event("one"), 0.1, event(" two"), event(None, "stop")]
    world = World(Source({"first": script if stream else says("one two"), "second": says("no")}), HEDGED)
    await world.ask(stream=stream)
    assert world.source.asked == ["first"]


@both_ways
async def test_of_two_that_fail_both_are_told(stream: bool) -> None:
    """Both failures are in the trail, and the third candidate answers."""
    dead = Refused("no", kind="server", http_status=500)
    world = World(Source({"a": [0.08, dead], "b": [dead], "c": says("yes")}), HEDGED)
    answer, _ = await asyncio.wait_for(world.ask(stream=stream), 5)
    assert sorted(made.model for made in answer.attempts[:2]) == ["s/a", "s/b"]
    assert answer.candidate.model.id == "c"


async def test_the_first_one_may_still_answer_when_the_second_fails() -> None:
    """A failed hedge changes nothing for the candidate that was asked first."""
    world = World(Source({"a": says("yes", after=0.1), "b": [Refused("no", kind="server", http_status=500)]}), HEDGED)
    answer, sink = await world.ask()
    assert (answer.candidate.model.id, sink.text) == ("a", "yes")
    assert [made.outcome for made in answer.attempts] == ["500", "ok"]


async def test_a_winner_that_breaks_off_is_taken_over_by_the_one_it_beat() -> None:
    """The beaten candidate did not fail: it is the next one when the winner's stream dies."""
    world = World(Source({"a": says("one two", after=0.3), "b": [event("one")]}), HEDGED)
    answer, sink = await asyncio.wait_for(world.ask(), 5)
    assert sink.text == "one two"
    assert answer.candidate.model.id == "a"
    assert b": trail " in sink.got


async def test_when_all_fail_there_is_one_error() -> None:
    """As without hedging."""
    dead = Refused("no", kind="server", http_status=500)
    world = World(Source({"a": [0.08, dead], "b": [0.08, dead]}), HEDGED)
    with pytest.raises(AllCandidatesFailed) as raised:
        await world.ask()
    assert [made.outcome for made in raised.value.attempts] == ["500", "500"]


async def test_a_client_that_leaves_stops_both() -> None:
    """Cancelling the call cancels both requests, and waits for it."""
    world = World(Source({"a": says("x", after=30), "b": says("y", after=30)}), HEDGED)
    task = asyncio.ensure_future(world.ask())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.source.stopped) == ["a", "b"]


async def test_a_pinned_model_has_nobody_to_hedge_with() -> None:
    """One candidate is waited for as long as ever."""
    world = World(Source({"a": says("yes", after=0.1)}), HEDGED)
    answer, sink = await world.ask()
    assert (sink.text, len(answer.attempts)) == ("yes", 1)


async def test_both_ready_at_the_same_moment_give_one_answer() -> None:
    """However the two interleave, the client hears one of them from beginning to end."""
    for _ in range(20):
        world = World(
            Source({"a": says("aa", "aa", after=0.02), "b": says("bb", "bb", after=0.0)}), Settings(Waits(hedge_s=0.02))
        )
        answer, sink = await world.ask(sink=Sink())
        assert sink.text == answer.candidate.model.id * 4


async def test_a_break_without_anybody_left_is_told() -> None:
    """The winner dies, the other one had failed: the client is told, once."""
    world = World(Source({"a": [Truncated("x")], "b": [event("one")]}), HEDGED)
    sink = Sink()
    with pytest.raises(Truncated):
        await world.ask(sink=sink)
    assert sink.got.count(b'"error"') == 1
    assert sink.got.endswith(b"data: [DONE]\n\n")
