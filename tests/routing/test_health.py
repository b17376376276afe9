"""The memory of refusals: what costs what, for how long, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import (
    AttemptError,
    BadReply,
    ConnectFailed,
    ConnectionLost,
    Refused,
    TimedOut,
    Truncated,
    Unmet,
    UnsupportedParameter,
)
from llmproxy.core.types import Call, Candidate, Forced, Model
from llmproxy.routing.health import Health
from tests.core.properties import quick

NOW = 1000.0
ONE = Candidate(Model("a", "m"))
OTHER_KEY = Candidate(Model("a", "m"), 1)
OTHER_MODEL = Candidate(Model("a", "n"))
ELSEWHERE = Candidate(Model("b", "m"))
LOCAL = Candidate(Model("local", "tiny", local=True))


def refused(kind: Any, status: int = 400, wait_s: float | None = None, param: str | None = None) -> Refused:
    return Refused("no", kind=kind, http_status=status, retry_after_s=wait_s, param=param)


def after(*errors: AttemptError, candidate: Candidate = ONE) -> Health:
    """The memory after failures, all at the same moment."""
    health = Health()
    for error in errors:
        health.failed(candidate, error, NOW)
    return health


def left_s(health: Health, candidate: Candidate = ONE, now: float = NOW) -> float:
    found = health.cooldown(candidate, now)
    return 0.0 if found is None else found.until_s - now


FREE_OF_CHARGE = [
    refused("invalid"), refused("content_filter"), refused("context_length"), refused("too_large", 413),
    refused("unsupported", param="n"), Unmet("no call", capability="tools"), UnsupportedParameter("no", param="n"),
]  # fmt: skip


@pytest.mark.parametrize("error", FREE_OF_CHARGE, ids=lambda error: f"{type(error).__name__} {error.message}")
def test_what_the_request_caused_costs_nothing(error: AttemptError) -> None:
    """An error that the request itself caused does not cool the candidate, nor count against it."""
    health = after(error, error, error)
    assert health.cooldown(ONE, NOW) is None
    assert health.success_rate(ONE) == 1.0


@pytest.mark.parametrize(
    ("error", "seconds", "provenance", "also"),
    [
        (refused("rate_limit", 429, 7.0), 7.0, "stated", ()),
        (refused("rate_limit", 429, 0.0), 0.0, "stated", ()),
        (refused("rate_limit", 429), 2.0, "heuristic", ()),
        (refused("auth", 401), 600.0, "dead key", (OTHER_MODEL,)),
        (refused("credit", 402), 600.0, "dead key", (OTHER_MODEL,)),
        (refused("credit", 402, 3600.0), 3600.0, "quota", (OTHER_MODEL,)),
        (refused("not_found", 404), 86_400.0, "retired", ()),
        (refused("forbidden", 403), 86_400.0, "retired", ()),
        (refused("server", 503, 4.0), 4.0, "heuristic", ()),
        (refused("server", 500), 1.0, "heuristic", ()),
        (refused("timeout", 408), 1.0, "heuristic", ()),
        (refused("conflict", 409), 1.0, "heuristic", ()),
        (BadReply("odd"), 1.0, "heuristic", ()),
        (TimedOut("slow", outcome="stall_timeout"), 2.0, "heuristic", ()),
        (ConnectionLost("reset"), 2.0, "heuristic", ()),
        (Truncated("cut"), 2.0, "heuristic", ()),
        (ConnectFailed("refused"), 1.0, "heuristic", (OTHER_MODEL,)),
        (refused("rate_limit", 429, 10 * 86_400.0), 86_400.0, "stated", ()),
    ],
)
def test_sentences(error: AttemptError, seconds: float, provenance: str, also: tuple[Candidate, ...]) -> None:
    """Each failure cools the candidate, its key or its source for its own time, and nobody else."""
    health = after(error)
    found = health.cooldown(ONE, NOW - 0.001)
    assert found is not None
    assert found.until_s == pytest.approx(NOW + seconds)
    assert found.provenance == provenance
    assert found.reason == f"{error.outcome}: {error.message}"
    for candidate in (OTHER_MODEL, ELSEWHERE):
        assert (health.cooldown(candidate, NOW - 0.001) is not None) is (candidate in also)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (OTHER_KEY, ONE),
        pytest.param(
            ONE,
            OTHER_KEY,
        ),
    ],
)
def test_keys_have_their_own_limits(first: Candidate, second: Candidate) -> None:
    """What one key of a model was refused does not bind its other keys."""
    health = after(refused("rate_limit", 429, 30.0), candidate=first)
    assert health.cooldown(first, NOW) is not None
    assert health.cooldown(second, NOW) is None


def test_a_source_that_cannot_be_reached() -> None:
    """A connection that failed concerns every key and every model of the source."""
    health = after(ConnectFailed("refused"))
    assert all(health.cooldown(one, NOW) for one in (ONE, OTHER_KEY, OTHER_MODEL))
    assert health.cooldown(ELSEWHERE, NOW) is None


@pytest.mark.parametrize(
    ("error", "most"), [(BadReply("x"), 30.0), (refused("rate_limit", 429), 30.0), (ConnectFailed("x"), 30.0)]
)
def test_guesses_double_up_to_a_limit(error: AttemptError, most: float) -> None:
    """Each failure in a row doubles the guess, up to a limit; a success begins again."""
    health = Health()
    seen = []
    for _ in range(9):
        health.failed(ONE, error, NOW)
        seen.append(left_s(health))
    assert seen == sorted(seen)
    assert seen[1] == 2 * seen[0]
    assert seen[-1] == most
    health.succeeded(ONE, 0.1)
    health.failed(ONE, error, NOW)
    assert left_s(health) == seen[0]


failures = st.sampled_from(
    [
        BadReply("x"), ConnectFailed("x"), Truncated("x"), refused("auth", 401), refused("rate_limit", 429),
        refused("rate_limit", 429, 5.0), refused("rate_limit", 429, 500.0), refused("server", 500),
        refused("server", 503, 9.0), refused("not_found", 404), refused("credit", 402, 50.0),
    ]
)  # fmt: skip


@quick
@given(st.lists(st.tuples(failures, st.floats(0, 20)), max_size=12))
def test_cooling_again_never_shortens(events: list[tuple[AttemptError, float]]) -> None:
    """Whatever fails while a candidate is cooling down, it is not asked earlier than before."""
    health = Health()
    now = NOW
    for error, pause_s in events:
        before = health.cooldown(ONE, now)
        health.failed(ONE, error, now)
        found = health.cooldown(ONE, now)
        if before is not None:
            assert found is not None
            assert found.until_s >= before.until_s or (found.binding and not before.binding)
        now += pause_s


@quick
@given(st.lists(failures, min_size=1, max_size=12))
def test_a_local_model_is_never_out_for_long(events: list[AttemptError]) -> None:
    """A local model is out for at most 5 s: nobody else may be there to ask."""
    assert left_s(after(*events, candidate=LOCAL), LOCAL) <= 5.0


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (BadReply("x"), True),
        (ConnectFailed("x"), True),
        (refused("auth", 401), True),
        (refused("not_found", 404), True),
        (refused("rate_limit", 429), True),
        (refused("rate_limit", 429, 30.0), False),
        (refused("credit", 402, 30.0), False),
    ],
)
def test_a_success_ends_guesses(error: AttemptError, ends: bool) -> None:
    """An answer proves a guess wrong; a wait that the provider stated stays."""
    health = after(error)
    health.succeeded(ONE, 0.2)
    assert (health.cooldown(ONE, NOW) is None) is ends


def test_expired_cooldowns_are_forgotten() -> None:
    """After its time a cooldown holds nobody back; a minute later the memory is as good as new."""
    health = after(BadReply("x"))
    assert not health.spotless
    assert health.cooldown(ONE, NOW + 1.0) is None
    assert not health.spotless
    assert health.cooldown(ONE, NOW + 61.0) is None
    assert health.spotless


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_guesses_differ_by_a_fifth(drawn: float, seconds: float) -> None:
    """So that a crowd that failed together does not come back together; what a provider states is kept to."""
    health = Health(lambda: drawn)
    health.failed(ONE, BadReply("x"), NOW)
    health.failed(ELSEWHERE, refused("rate_limit", 429, 7.0), NOW)
    guess, stated = health.cooldown(ONE, NOW), health.cooldown(ELSEWHERE, NOW)
    assert guess is not None
    assert stated is not None
    assert (guess.until_s, stated.until_s) == (pytest.approx(NOW + seconds), NOW + 7.0)


def test_one_call_alone_finds_out_whether_it_is_well_again() -> None:
    """Half-open: the first call after a cooldown is the trial, the others stand back until its end."""
    health = after(ConnectFailed("x"))
    assert health.cooldown(OTHER_MODEL, NOW + 2.0) is None
    health.asked(ONE, NOW + 2.0)
    trial = health.cooldown(OTHER_MODEL, NOW + 2.0)
    assert trial is not None
    assert trial.provenance == "probe"
    assert not trial.binding
    health.succeeded(ONE, 0.1)
    assert health.spotless


def test_a_trial_that_fails_counts_from_its_failure() -> None:
    """The mark of the trial goes; the new cooldown is the doubled one, neither longer nor shorter for the mark."""
    health = after(BadReply("x"))
    health.asked(ONE, NOW + 1.0)
    health.failed(ONE, BadReply("x"), NOW + 1.5)
    again = health.cooldown(ONE, NOW + 1.5)
    assert again is not None
    assert (again.provenance, again.until_s) == ("heuristic", NOW + 3.5)


def test_a_trial_that_nobody_ended_is_over_by_itself() -> None:
    """A client that leaves during the trial does not lock the candidate out."""
    health = after(BadReply("x"))
    health.asked(ONE, NOW + 1.0)
    assert health.cooldown(ONE, NOW + 1.0) is not None
    assert health.cooldown(ONE, NOW + 20.0) is None


@pytest.mark.parametrize(
    "error", [refused("server", 503, wait_s=3600.0), ConnectFailed("x"), TimedOut("x", outcome="x")]
)
def test_whoever_recovers_is_back_within_half_a_minute(error: AttemptError) -> None:
    """However often it failed, and whatever a 503 says, nothing that is only a guess lasts longer than 30 s."""
    health = after(*[error] * 12)
    assert health.cooldown(ONE, NOW + 29.0) is not None
    assert health.cooldown(ONE, NOW + 30.0) is None


def forced(size: int = 0, **of: Any) -> Call:
    return Call("id", "chat", "m", {"max_tokens": size}, forced=Forced(**of), prompt_tokens=size)


def test_a_capability_is_lost_by_not_delivering_it_again_and_again() -> None:
    """Two answers without it are bad luck, three in a row are a trait; one that delivers has it again."""
    health, lacks = Health(), frozenset({"json"})
    for _ in range(2):
        health.failed(ONE, Unmet("prose", capability="json"), NOW)
    assert health.spotless
    health.failed(ONE, Unmet("prose", capability="json"), NOW)
    assert "did not deliver json" in str(health.learned_lack(ONE, lacks, NOW))
    assert "json" in health.learned(ONE, NOW)
    assert health.cooldown(ONE, NOW) is None
    health.succeeded(ONE, 0.1, forced(json=True))
    assert health.learned_lack(ONE, lacks, NOW) is None
    assert health.learned(ONE, NOW) == {"json": "delivered"}


def test_a_capability_is_gained_by_delivering_it() -> None:
    """Only what was not known; and it is lost again like any other."""
    health, knowing = Health(), Candidate(Model("a", "k", capabilities=frozenset({"tools"})))
    health.succeeded(ONE, 0.1, forced(tools={}))
    health.succeeded(knowing, 0.1, forced(tools={}))
    health.succeeded(ELSEWHERE, 0.1, Call("id", "chat", "m", {}))
    assert health.gained == {("a/m", "tools")}
    for _ in range(3):
        health.failed(ONE, Unmet("prose", capability="tools"), NOW)
    assert health.gained == frozenset()


@pytest.mark.parametrize("kind", ["context_length", "too_large"])
def test_the_size_that_was_refused_is_remembered(kind: Any) -> None:
    """The smallest one, of that model, for a day; it costs no health."""
    health = Health()
    for size in (500, 400, 600):
        health.failed(ONE, refused(kind), NOW, forced(size, json=True))
    assert health.refused_size(OTHER_KEY, NOW) == 800
    assert health.refused_size(OTHER_MODEL, NOW) is None
    assert health.learned(ONE, NOW) == {"size": "refused 800 tokens"}
    assert health.cooldown(ONE, NOW) is None
    assert not health.spotless
    assert health.refused_size(ONE, NOW + 86_400) is None
    assert health.spotless


def test_learned_lacks_expire() -> None:
    """What a model refused to honour is known for an hour, for that model and that field alone."""
    health = after(refused("unsupported", param="logprobs"))
    assert health.learned_lack(ONE, frozenset({"logprobs", "n"}), NOW + 3599) == "no"
    assert health.learned_lack(OTHER_KEY, frozenset({"logprobs"}), NOW) == "no"
    assert health.learned_lack(ONE, frozenset({"n"}), NOW) is None
    assert health.learned_lack(OTHER_MODEL, frozenset({"logprobs"}), NOW) is None
    assert health.learned_lack(ONE, frozenset({"logprobs"}), NOW + 3600) is None
    assert health.spotless


def test_an_unnamed_lack_teaches_nothing() -> None:
    """A refusal that does not say which field it is about is not learned."""
    assert after(refused("unsupported")).spotless


def test_speed_and_success_are_smoothed() -> None:
    """The first measure counts in full, later ones a fifth; unknown candidates are not slow, and fail never."""
    health = Health()
    assert health.speed(ONE) is None
    assert health.success_rate(ONE) == 1.0
    health.succeeded(ONE, 1.0)
    health.succeeded(ONE, 2.0)
    assert health.speed(ONE) == pytest.approx(1.2)
    health.failed(ONE, BadReply("x"), NOW)
    assert health.success_rate(ONE) == pytest.approx(0.8)


@pytest.mark.parametrize("errors", [(30, 10), (10, 30)], ids=["guess first", "wait first"])
def test_a_stated_wait_binds_beside_a_longer_guess(errors: tuple[int, int]) -> None:
    """As long as a stated wait lasts, the candidate is out, whatever else it has done."""
    health = Health()
    for seconds in errors:
        kind = "server" if seconds == 30 else "rate_limit"
        health.failed(ONE, refused(kind, 429, float(seconds)), NOW)
    found = health.cooldown(ONE, NOW)
    assert found is not None
    assert found.binding


SILENCE = TimedOut("nothing", outcome="first_token_timeout")


def test_a_source_of_which_nobody_says_anything_is_tried_once_for_all() -> None:
    """Silence of several of its candidates puts the whole source behind the others; one call finds out for all."""
    health, third = Health(), Candidate(Model("a", "o"))
    for count, candidate in enumerate((ONE, OTHER_MODEL, ONE)):
        health.failed(candidate, SILENCE, NOW + count)
    found = health.cooldown(third, NOW + 2.0)
    assert found is not None
    assert (found.provenance, found.silent, found.binding) == ("silence", True, False)
    health.asked(ONE, NOW + 20.0)
    assert health.cooldown(third, NOW + 20.0).provenance == "probe"  # type: ignore[union-attr]
    health.succeeded(ONE, 0.1)
    assert health.cooldown(third, NOW + 20.0) is None


def test_a_refusal_is_no_silence() -> None:
    """Whoever says no is there: the source does not cool down for one silent model and another that is busy."""
    health = Health()
    for error in (SILENCE, refused("server", 500), SILENCE, refused("rate_limit", 429), SILENCE):
        health.failed(OTHER_MODEL if isinstance(error, Refused) else ONE, error, NOW)
    assert health.cooldown(Candidate(Model("a", "o")), NOW) is None


@pytest.mark.parametrize(("silent_s", "least_s", "most_s"), [(100.0, 29.0, 30.0), (4_000.0, 990.0, 1_000.0)])
def test_who_was_silent_for_long_is_tried_less_often(silent_s: float, least_s: float, most_s: float) -> None:
    """A quarter of the silence, at least half a minute."""
    health = after(*[SILENCE] * 12)
    health.failed(ONE, SILENCE, NOW + silent_s)
    found = health.cooldown(ONE, NOW + silent_s)
    assert found is not None
    assert least_s <= found.until_s - NOW - silent_s <= most_s
