"""Days on a clock of their own: what is served, what is refused, and what is sent in vain."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from llmproxy.cli import main
from llmproxy.core.config import parse
from llmproxy.core.errors import ConfigError, ModelNotFound
from llmproxy.simulation.demand import Request, read
from llmproxy.simulation.report import simulate

LIMITS: dict[str, Any] = {
    "groq/llama-3.3-70b-versatile": {
        "requests_per_minute": 30, "requests_per_day": 1000, "tokens_per_minute": 12000, "reset": "bucket"
    },
    "google/gemini-2.5-flash": {"requests_per_minute": 5, "requests_per_day": 20, "reset": "America/Los_Angeles"},
    "mistral/ministral-8b-latest": {"requests_per_minute": 50, "tokens_per_minute": 50000, "reset": "minute"},
    "cerebras/gpt-oss-120b": {"requests_per_minute": 5, "requests_per_day": 240, "concurrency": 2},
}  # fmt: skip


def config_of(limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    providers = {name.partition("/")[0]: {"api_key": "k"} for name in limits}
    return {"providers": providers, "free_limits": limits, "local": {"models": []}, **more}


def demand_file(folder: Path, count: int, hours: float, prompt: int = 200, seed: int = 1, **fields: Any) -> Path:
    """Requests at random times, with tokens around the given ones."""
    chance, path = Random(seed), folder / "demand.jsonl"
    lines = [
        {
            "at_s": chance.uniform(0, hours * 3600),
            "pool": "llmproxy/free",
            "prompt_tokens": int(chance.expovariate(1 / prompt)) + 1,
            "completion_tokens": int(chance.expovariate(1 / 150)) + 1,
            **fields,
        }
        for _ in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def run(folder: Path, limits: dict[str, Any], count: int, hours: float = 2.0, **options: Any) -> dict[str, Any]:
    demand = demand_file(folder, count, hours, **options.pop("demand", {}))
    return simulate(parse(config_of(limits)), demand, hours=24, **options)


def test_what_fits_is_served_and_nothing_is_sent_in_vain(tmp_path: Path) -> None:
    """A demand below the limits: every request is answered by its first upstream call."""
    body = run(tmp_path, LIMITS, 1200)
    assert (body["demand"], body["served"], body["refused"]) == (1200, 1200, 0)
    assert body["wasted"] <= 0.005 * body["calls"]
    assert sum(entry["served"] for entry in body["candidates"]) == 1200


def test_what_does_not_fit_is_refused_without_a_call(tmp_path: Path) -> None:
    """Ten times the limits: the windows are filled, and the rest never reaches an upstream."""
    only = {"google/gemini-2.5-flash": LIMITS["google/gemini-2.5-flash"]}
    body = run(tmp_path, only, 400)
    assert (body["served"], body["refused"], body["over_limit"]) == (20, 380, 0)


def test_a_window_of_the_day_begins_anew(tmp_path: Path) -> None:
    """Midnight Pacific is 8:00 UTC: 20 before it and 20 after it."""
    only = {"google/gemini-2.5-flash": LIMITS["google/gemini-2.5-flash"]}
    body = run(tmp_path, only, 600, 16.0)
    assert (body["served"], body["over_limit"]) == (40, 0)


def test_limits_that_were_declared_wrong_are_learned(tmp_path: Path) -> None:
    """The upstream allows 10 a minute that slide, not 30 that are refilled: a few refusals teach both."""
    name = "groq/llama-3.3-70b-versatile"
    hidden = tmp_path / "hidden.json"
    hidden.write_text(json.dumps({name: {"requests_per_minute": 10, "requests_per_day": 1000}}), "utf-8")
    body = run(tmp_path, {name: LIMITS[name]}, 3000, hidden=hidden)
    assert body["over_limit"] <= 5
    assert body["served"] >= 990


def test_a_provider_that_is_silent_is_left(tmp_path: Path) -> None:
    """Its share is served by the others."""
    body = run(tmp_path, LIMITS, 600, fail=["groq"])
    assert body["served"] >= 595
    assert all(not entry["model"].startswith("groq/") for entry in body["candidates"])


def test_the_same_seed_gives_the_same_day(tmp_path: Path) -> None:
    """A simulation can be repeated."""
    assert run(tmp_path, LIMITS, 300, seed=4) == run(tmp_path, LIMITS, 300, seed=4)


def test_the_plot_shows_what_is_left_of_each_limit(tmp_path: Path) -> None:
    """One row for each limit, of which the day's goes down and comes back at midnight Pacific."""
    only = {"google/gemini-2.5-flash": LIMITS["google/gemini-2.5-flash"]}
    path = tmp_path / "quota.svg"
    run(tmp_path, only, 600, 16.0, plot=path)
    drawn = ElementTree.parse(path).getroot()
    assert drawn.tag.endswith("svg")
    rows = {row[0].text: row.get("points", "") for row in drawn if row.tag.endswith("polygon")}
    assert list(rows) == [
        "google/gemini-2.5-flash: 5 requests per minute",
        "google/gemini-2.5-flash: 20 requests per day, America/Los_Angeles",
    ]
    heights = [float(point.split(",")[1]) for point in rows[list(rows)[1]].split()[:-2]]
    turn = next(place for place in range(len(heights) // 4, len(heights)) if heights[place] < heights[place - 1])
    assert turn / len(heights) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ConfigError, match=r"must end in \.svg"):
        run(tmp_path, only, 3, plot=tmp_path / "quota.gif")
    with pytest.raises(ConfigError, match="cannot be written"):
        run(tmp_path, only, 3, plot=tmp_path / "none" / "quota.svg")


def test_what_was_served_stands_beside_what_could_have_been(tmp_path: Path) -> None:
    """Twenty before midnight Pacific, twenty after it."""
    only = {"google/gemini-2.5-flash": LIMITS["google/gemini-2.5-flash"]}
    body = run(tmp_path, only, 600, 16.0)
    assert (body["served"], body["bound"], body["bound_ratio"]) == (40, 40, 1.0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "demand.jsonl:2: not JSON"),
        ("[]", "demand.jsonl:2: must be an object"),
        ('{"at_s": -1}', "demand.jsonl:2: at_s: must be a number of at least 0"),
        ('{"at_s": true}', "demand.jsonl:2: at_s: must be a number"),
        ('{"needs": ["wings"]}', "demand.jsonl:2: needs: must be a list of"),
        ('{"pool": 3}', "demand.jsonl:2: pool: must be a name"),
        ('{"colour": "red"}', "demand.jsonl:2: colour: unknown key"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """By file and number."""
    path = tmp_path / "demand.jsonl"
    path.write_text('{"at_s": 1}\n' + line, "utf-8")
    with pytest.raises(ConfigError, match=problem):
        read(path)


def test_a_demand_is_read_in_the_order_of_its_times(tmp_path: Path) -> None:
    """Whatever the order of its lines; blank ones are left out."""
    path = tmp_path / "demand.jsonl"
    path.write_text('{"at_s": 5, "needs": ["json"]}\n\n{"at_s": 1, "prompt_tokens": 7}\n', "utf-8")
    assert read(path) == [
        Request(1.0, "llmproxy/free", 7, 0),
        Request(5.0, "llmproxy/free", 0, 0, frozenset({"json"})),
    ]


def test_names_that_stand_for_nothing_are_told(tmp_path: Path) -> None:
    """Pools of the demand, providers of --fail, and a configuration that names no model."""
    with pytest.raises(ModelNotFound):
        run(tmp_path, LIMITS, 3, demand={"pool": "llmproxy/nothing"})
    with pytest.raises(ConfigError, match="--fail: nobody: not among providers"):
        run(tmp_path, LIMITS, 3, fail=["nobody"])
    with pytest.raises(ConfigError, match="somebody to ask"):
        simulate(parse({}), demand_file(tmp_path, 3, 1.0), hours=1)


def test_the_command(tmp_path: Path) -> None:
    """JSON for programs, a table for people, exit code 2 for a wrong file."""
    config, demand = tmp_path / "config.json", demand_file(tmp_path, 50, 1.0)
    config.write_text(json.dumps(config_of(LIMITS)), "utf-8")
    told = CliRunner().invoke(main, ["simulate", "--config", str(config), "--demand", str(demand), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["served"] == 50
    shown = CliRunner().invoke(main, ["simulate", "--config", str(config), "--demand", str(demand), "--hours", "0.5"])
    assert "served" in shown.output
    missing = CliRunner().invoke(main, ["simulate", "--config", str(config), "--demand", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "cannot be read" in missing.output
