"""The snapshot of models: lists stay through failures and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError, ConnectFailed
from llmproxy.core.types import Model
from llmproxy.gateway.inventory import Inventory, ListCache
from llmproxy.routing.catalog import Offer

ONE = Model("a", "one", capabilities=frozenset({"tools"}), lacks=frozenset({"vision"}), context_tokens=10, created_s=5)
TWO = Model("a", "two", price_usd_per_mtok=0.5)


class Lists:
    """A source that has a list, or fails."""

    name = "a"

    def __init__(self, *answers: Sequence[Model] | Exception) -> None:
        self.answers = list(answers)

    async def models(self) -> Sequence[Model]:
        """The next answer; the last one again and again."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def inventory(path: Path | None = None, key: str = "k") -> Inventory:
    made = Inventory(ListCache(path))
    made.configure(Config(), [Offer("a")], {"a": key})
    return made


def ids(held: Inventory) -> list[str]:
    return [model.id for model in held.catalog.models]


async def test_a_list_is_taken_over() -> None:
    """A fetched list is in the next snapshot; the one before is not changed."""
    held = inventory()
    before = held.catalog
    assert await held.refresh(Lists([ONE, TWO]))  # type: ignore[arg-type]
    assert ids(held) == ["one", "two"]
    assert before.models == ()


@pytest.mark.parametrize("answer", [ConnectFailed("refused"), []], ids=["failed", "empty"])
async def test_a_failure_changes_nothing(answer: Exception | list[Model]) -> None:
    """After a failure or an empty list the models of before stay, and the reason is kept until the next success."""
    held = inventory()
    source = Lists([ONE], answer, [TWO])
    for expected, error in ((["one"], False), (["one"], True), (["two"], False)):
        await held.refresh(source)  # type: ignore[arg-type]
        assert ids(held) == expected
        assert ("a" in held.errors) is error


async def test_a_restart_knows_the_lists(tmp_path: Path) -> None:
    """What was fetched is on disk, as it was, for the same provider at the same address."""
    path = tmp_path / "cache" / "models.json"
    await inventory(path).refresh(Lists([ONE, TWO]))  # type: ignore[arg-type]
    assert ListCache(path).get("k") == (ONE, TWO)
    assert ids(inventory(path)) == ["one", "two"]
    assert ids(inventory(path, key="elsewhere")) == []


not_an_object = pytest.param(
    '{"k": [1]}',
)


@pytest.mark.parametrize("text", ["", "[]", '{"k": 1}', not_an_object, '{"k": [{"nonsense": 1}]}', "{"])
def test_a_broken_cache_is_not_used(tmp_path: Path, text: str) -> None:
    """A file that cannot be used is as good as none."""
    path = tmp_path / "models.json"
    path.write_text(text)
    assert ids(inventory(path)) == []


async def test_a_new_configuration_keeps_the_lists() -> None:
    """A list stays when the configuration changes, unless the provider's address does; a broken one changes nothing."""
    held = inventory()
    await held.refresh(Lists([ONE]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        held.configure(Config(aliases={"a": "a"}), [Offer("a")], {"a": "k"})
    assert ids(held) == ["one"]
    held.configure(Config(aliases={"x": "a/one"}), [Offer("a")], {"a": "k"})
    assert held.catalog.select("x").candidates[0].model.id == "one"
    held.configure(Config(), [Offer("a")], {"a": "other"})
    assert ids(held) == []


async def test_lists_are_fetched_in_the_background() -> None:
    """`start` returns at once, and the list is there soon after."""
    held = inventory()
    await held.start({"a": Lists([ONE])})  # type: ignore[dict-item]
    async with asyncio.timeout(5):
        while not held.catalog.models:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
    await held.aclose()
    assert ids(held) == ["one"]
