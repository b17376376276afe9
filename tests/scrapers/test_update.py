"""A refresh from reading to publishing: two snapshots in a row, sources that fail, versions and going back."""

from __future__ import annotations

import logging

import pytest

from llmproxy.core.types import Model
from scrapers import versions
from scrapers.base import Evidence, Rank, Source
from scrapers.fetch import Fetched
from scrapers.store import EvidenceStore, Reading
from scrapers.update import Decision, SourceReport, Target, decide, gather, observe, publish
from tests.scrapers.worlds import DAY, LIST, PAGE, SCOPE, TARGETS, Web, limits_page, models_list

ROW = {"requests_per_minute": 30, "requests_per_day": 1000}


async def run(store: EvidenceStore, web: Web) -> tuple[dict[str, SourceReport], Decision]:
    """One refresh at the web's time, published."""
    reports = await gather(store, TARGETS, web.get(), SCOPE, now=web.clock)
    decision = decide(store, SCOPE, web.now, [LIST, PAGE])
    publish(store, decision, "test", web.now)
    return {report.source: report for report in reports}, decision


@pytest.fixture
def store() -> EvidenceStore:
    return EvidenceStore(None)


async def test_what_is_found_is_published(store: EvidenceStore) -> None:
    """A list and a page become findings: what is there, what is free, and its limits with source and day."""
    web = Web({"list": models_list("groq", "a-8b", "b"), "page": limits_page("groq", a_8b=ROW)})
    reports, decision = await run(store, web)
    assert {name: report.status for name, report in reports.items()} == {"list": "read", "page": "read"}
    findings = versions.published(store)
    found = findings.limits["groq/a-8b"]
    assert (found.entry.requests_per_day, found.source, found.as_of) == (1000, "page", "1972-09-27")
    assert findings.of(Model("groq", "a-8b")).is_free is True
    assert findings.of(Model("groq", "b")).is_free is None
    assert {(change.kind, change.name) for change in decision.changes} == {("added", "groq/a-8b"), ("added", "groq/b")}
    assert publish(store, decide(store, SCOPE, web.now, [LIST, PAGE]), "again", web.now) is None


async def test_two_snapshots_in_a_row(store: EvidenceStore) -> None:
    """A model that comes is there at once; one that leaves stays until it was missed on two readings over a day."""
    ids = ["a", "b", "c"]
    web = Web({"list": models_list("groq", *ids, free=ids)})
    await run(store, web)
    web.pages["list"] = models_list("groq", "a", "b", "new", free=["a", "b", "new"])
    gone = []
    for _ in range(3):
        web.now += 0.9 * DAY
        await run(store, web)
        findings = versions.published(store)
        assert findings.models["groq/new"].free == "quota"
        gone.append(findings.models["groq/c"].gone)
    assert gone == [False, True, True]
    web.now += DAY
    web.pages["list"] = models_list("groq", *ids, free=ids)
    await run(store, web)
    back = versions.published(store).models
    assert (back["groq/c"].gone, back["groq/c"].free) == (False, "quota")


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (b"<html>sorry", "failed"),
        (models_list("groq"), "empty"),
        (models_list("groq", "a"), "shrunken"),
        (None, "failed"),
    ],
    ids=["redesigned", "empty", "shrunken", "unreachable"],
)
async def test_a_source_in_trouble_is_no_evidence(
    store: EvidenceStore, page: bytes | None, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that is redesigned, empty, shrunken or away changes nothing, and costs one warning that names it."""
    ids = [f"m{number}" for number in range(10)]
    web = Web({"list": models_list("groq", *ids, free=ids)})
    await run(store, web)
    before = versions.published(store)
    if page is None:
        del web.pages["list"]
    else:
        web.pages["list"] = page
    web.pages["page"] = limits_page("groq", m0=ROW)
    for _ in range(2):
        web.now += DAY
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            reports, _ = await run(store, web)
        assert reports["list"].status == status
        assert [record.levelname for record in caplog.records if "list" in record.getMessage()] == ["WARNING"]
    assert versions.published(store).models == before.models


async def test_a_list_that_stays_small_is_believed_in_the_end(store: EvidenceStore) -> None:
    """Mass departures are real: what stays shrunken over two readings and a day counts with the third."""
    ids = [f"m{number}" for number in range(10)]
    web = Web({"list": models_list("groq", *ids)})
    await run(store, web)
    web.pages["list"] = models_list("groq", "m0")
    statuses = []
    for _ in range(4):
        web.now += DAY
        reports, _ = await run(store, web)
        statuses.append(reports["list"].status)
    assert statuses == ["shrunken", "shrunken", "read", "read"]
    web.now += DAY
    await run(store, web)
    assert versions.published(store).models["groq/m5"].gone is True


async def test_names_count_only_when_the_provider_has_them(store: EvidenceStore) -> None:
    """A page's name that is no known id is reported and becomes no finding; a footnote at its end is not part of it."""
    web = Web({"list": models_list("groq", "gemma-4-31b"), "page": limits_page("groq", gemma_4_31b1=ROW, nope=ROW)})
    reports, _ = await run(store, web)
    assert reports["page"].unmatched == ("groq/nope",)
    assert list(versions.published(store).limits) == ["groq/gemma-4-31b"]


async def test_unchanged_pages_stay_fresh(store: EvidenceStore) -> None:
    """A page that has not changed is as good as read again, also after a year."""
    web = Web({"list": models_list("groq", "a"), "page": limits_page("groq", a=ROW)})
    await run(store, web)
    web.pages = {"list": None, "page": None}
    for _ in range(12):
        web.now += 30 * DAY
        reports, _ = await run(store, web)
        assert reports["page"].status == "unchanged"
    assert versions.published(store).models["groq/a"].free == "quota"


async def test_one_source_that_breaks_costs_the_others_nothing(store: EvidenceStore) -> None:
    """An error that nobody foresaw in one parser is reported of that source alone."""

    def broken(raw: bytes) -> list[Evidence]:
        raise ZeroDivisionError("a page that nobody foresaw")

    bad = Target(Source("bad", "https://bad.test", Rank.DOCS, 0.85, broken))
    web = Web({"list": models_list("groq", "a"), "bad": b"x"})
    reports = await gather(store, [bad, *TARGETS[:1]], web.get(), SCOPE, now=web.clock)
    assert {report.source: (report.status, report.error) for report in reports} == {
        "bad": ("failed", "ZeroDivisionError: a page that nobody foresaw"),
        "list": ("read", ""),
    }


async def test_an_older_copy_does_not_replace_newer_evidence(store: EvidenceStore) -> None:
    """What was saved before the last reading is not taken for news."""
    web = Web({"list": models_list("groq", "a")})
    await run(store, web)
    web.now -= 30 * DAY
    web.pages["list"] = models_list("groq", "a", "old")
    reports, _ = await run(store, web)
    assert reports["list"].status == "failed"
    assert "older" in reports["list"].error
    assert store.known_ids() == {"groq": {"a"}}


async def test_what_providers_answer_beats_their_pages(store: EvidenceStore) -> None:
    """A limit seen in a refusal counts before the page's number, and a second one does not replace the first."""
    web = Web({"list": models_list("groq", "a", "b"), "page": limits_page("groq", a=ROW, b=ROW)})
    await run(store, web)
    for model, amount in (("a", 5.0), ("b", 7.0)):
        seen = Evidence(
            "groq", model, "limit.requests_per_minute", amount, source="answers", rank=Rank.OBSERVED, confidence=0.98,
            seen_at_s=web.now,
        )  # fmt: skip
        observe(store, [seen], web.now)
    decision = decide(store, SCOPE, web.now, [LIST, PAGE])
    amounts = {name: found.entry.requests_per_minute for name, found in decision.findings.limits.items()}
    assert amounts == {"groq/a": 5, "groq/b": 7}


async def test_going_back_holds_until_the_next_run_by_hand(store: EvidenceStore) -> None:
    """A rollback publishes the version before as a new one; until it is released, refreshes publish nothing."""
    web = Web({"list": models_list("groq", "a", free=["a"])})
    await run(store, web)
    web.now += DAY
    web.pages["list"] = models_list("groq", "a", "b", free=["a", "b"])
    await run(store, web)
    made = versions.roll_back(store, web.now)
    assert (made.id, made.why) == (3, "rolled back to version 1")
    assert [(change["kind"], change["name"]) for change in made.changes] == [("removed", "groq/b")] * 2
    web.now += DAY
    await run(store, web)
    assert store.latest_number() == 3
    versions.release(store)
    await run(store, web)
    assert "groq/b" in versions.published(store).models
    with pytest.raises(ValueError, match="no version 9"):
        versions.roll_back(store, web.now, 9)


async def test_a_dry_run_leaves_nothing(store: EvidenceStore) -> None:
    """What is done to a copy is not seen in the store."""
    web = Web({"list": models_list("groq", "a")})
    twin = store.copy()
    await run(twin, web)
    assert twin.latest_number() == 1
    assert (store.latest_number(), store.sightings()) == (0, [])


async def test_a_fetched_reply_keeps_its_validators(store: EvidenceStore) -> None:
    """The next request of a source can be conditional: its ETag and date are kept with the reading."""

    async def get(target: Target, last: Reading | None) -> Fetched:
        return Fetched(target.source.url, models_list("groq", "a"), '"e1"', "Sat, 21 Nov 2026 04:17:00 GMT", 5.0)

    await gather(store, TARGETS[:1], get, SCOPE, now=lambda: 5.0)
    last = store.last_reading("list")
    assert last is not None
    assert (last.etag, last.last_modified) == ('"e1"', "Sat, 21 Nov 2026 04:17:00 GMT")
