"""A coding agent's requests, as Codex writes them, over every kind of upstream: what arrives there, and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes import scenarios
from tests.fakes.upstream import UpstreamThread
from tests.sdk.conftest import Fakes
from tests.sdk.matrix import FAKES
from tests.servers import Client, Json, Server, client_of

MODEL = "claude-sonnet-4-5-tools"
INSTRUCTIONS = "You are a coding agent.\n" + "Rules of the house.\n" * 400
PERMISSIONS = "<permissions instructions>\nFiles can be read.\n</permissions instructions>"
SKILLS = "<skills_instructions>\nNone.\n</skills_instructions>"
PLACE = "<environment_context>\n  <cwd>/workspace</cwd>\n</environment_context>"
TASK = "Tell the weather of the file’s cities."
LARGE = "".join(f"{number:6}\tline {number} of a file, “quoted” \\ and {{braced}}\n" for number in range(4000))
CHANGE = '*** Begin Patch\n*** Add File: a.txt\n+"a"\n*** End Patch\n'
GRAMMAR = 'start: begin_patch hunk+ end_patch\nbegin_patch: "*** Begin Patch" LF'
LONG_NAME = "look_up_the_documentation_of_a_project_by_its_topic_and_version"
upstreams = pytest.mark.parametrize("source", FAKES)


def function(name: str, description: str, **properties: Json) -> Json:
    """A function as Codex offers it."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "name": name,
        "description": description,
        "strict": False,
        "parameters": parameters,
    }


def tools() -> list[Json]:
    """Functions, a custom tool with a grammar, the tools of an MCP server in a namespace, and what the fakes call."""
    lookup = function(LONG_NAME, "Finds a page.", topic={"type": "string"})
    many = [function(f"tool_{number}", f"Does {number}.\n" * 40, path={"type": "string"}) for number in range(20)]
    return [
        function("exec_command", "Runs a command.", cmd={"type": "string"}, yield_time_ms={"type": "number"}),
        *many,
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files. This is a FREEFORM tool, so do not wrap the patch in JSON.",
            "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
        },
        {"type": "namespace", "name": "mcp__docs", "description": "The documentation.", "tools": [lookup]},
        function(scenarios.TOOL, "Tells the weather.", city={"type": "string"}),
    ]


def message(role: str, *texts: str) -> Json:
    parts = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "message", "id": f"msg_{role}", "role": role, "content": parts}


def conversation() -> list[Json]:
    """A task; a thought that OpenAI has encrypted; three calls of different kinds; their results, one of them large."""
    called = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command"}
    found = {"type": "function_call", "id": "fc_2", "call_id": "call_2", "namespace": "mcp__docs", "name": LONG_NAME}
    thought = [{"type": "summary_text", "text": "I should read the file first."}]
    parts = [{"type": "input_text", "text": text} for text in ("Wall time: 0.1 seconds\nOutput:", "a page")]
    return [
        message("developer", SKILLS, PERMISSIONS),
        message("user", PLACE),
        message("user", TASK),
        {"type": "reasoning", "id": "rs_1", "summary": thought, "content": None, "encrypted_content": "gAAAAABo"},
        {**called, "arguments": '{"cmd":"cat a.txt"}'},
        {**found, "arguments": '{"topic":"weather"}'},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_3", "name": "apply_patch", "input": CHANGE},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": LARGE},
        {"type": "function_call_output", "id": "fco_2", "call_id": "call_2", "output": parts},
        {"type": "custom_tool_call_output", "id": "cto_1", "call_id": "call_3", "output": "Success."},
        message("user", "Go on."),
    ]


def request(model: str, items: list[Json]) -> Json:
    return {
        "model": model,
        "instructions": INSTRUCTIONS,
        "input": items,
        "tools": tools(),
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a115ae-3c3d-7602-8a53-a7f43b85d160",
        "text": {"verbosity": "medium"},
        "client_metadata": {"x-codex-installation-id": "a84fbbcb-e619-41fe-91a2-e37e98dec6b8"},
    }


@pytest.fixture
async def client(polyglot: Server) -> AsyncIterator[Client]:
    """A plain HTTP client, as the agent is one."""
    async with client_of(polyglot, Authorization="Bearer unused", Accept="text/event-stream") as client:
        yield client


async def turn(client: Client, body: Json) -> tuple[list[Json], Json]:
    """(the items that are done, the response) as the agent reads them from a stream."""
    answer = await client.post("/v1/responses", body)
    assert (answer.status, answer.streamed) == (200, True), answer.body[:500]
    blocks = [block for block in answer.body.decode().split("\n\n") if "data: " in block]
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["type"] == "response.completed"
    return done, events[-1]["response"]


@upstreams
async def test_a_turn_and_the_next(client: Client, source: str) -> None:
    """The calls come back in a stream, go in again with their results, and the upstream finds them paired."""
    items = conversation()
    done, response = await turn(client, request(f"{source}/{MODEL}", items))
    assert [(item["type"], item["name"]) for item in done] == [("function_call", scenarios.TOOL)] * 2
    assert [json.loads(item["arguments"])["city"] for item in done] == list(scenarios.CITIES)
    assert {"input_tokens", "output_tokens", "total_tokens"} <= response["usage"].keys()
    assert "cached_tokens" in response["usage"]["input_tokens_details"]
    assert "reasoning_tokens" in response["usage"]["output_tokens_details"]
    results = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": degrees}
        for call, degrees in zip(done, scenarios.TEMPERATURES, strict=True)
    ]
    calls = [{key: call[key] for key in ("type", "id", "name", "arguments", "call_id")} for call in done]
    done, response = await turn(client, request(f"{source}/{MODEL}", [*items, *calls, *results]))
    assert [part["text"] for part in done[-1]["content"]] == [scenarios.WEATHER]
    assert (await client.get(f"/v1/responses/{response['id']}")).status == 404


async def test_an_openai_upstream_gets_all_of_it(client: Client, fakes: Fakes) -> None:
    """Instructions, roles, texts, calls and results arrive to the letter; only the thought has no place there."""
    await turn(client, request(f"oai/{MODEL}", conversation()))
    got = fakes.oai.last(MODEL).json
    page = tool_of(got["tools"], "mcp__docs__")["name"]
    assert got["messages"] == [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "system", "content": [{"type": "text", "text": SKILLS}, {"type": "text", "text": PERMISSIONS}]},
        {"role": "user", "content": PLACE},
        {"role": "user", "content": TASK},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                called("call_1", "exec_command", '{"cmd":"cat a.txt"}'),
                called("call_2", page, '{"topic":"weather"}'),
                called("call_3", "apply_patch", json.dumps({"input": CHANGE}, separators=(",", ":"))),
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": LARGE},
        {
            "role": "tool",
            "tool_call_id": "call_2",
            "content": [
                {"type": "text", "text": "Wall time: 0.1 seconds\nOutput:"},
                {"type": "text", "text": "a page"},
            ],
        },
        {"role": "tool", "tool_call_id": "call_3", "content": "Success."},
        {"role": "user", "content": "Go on."},
    ]
    offered = {tool["function"]["name"]: tool["function"] for tool in got["tools"]}
    assert len(offered) == len(tools())
    assert offered["tool_7"] == {key: value for key, value in tools()[8].items() if key != "type"}
    assert GRAMMAR in offered["apply_patch"]["description"]
    assert {key: got[key] for key in ("tool_choice", "parallel_tool_calls", "reasoning_effort")} == {
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning_effort": "medium",
    }


@pytest.mark.parametrize("source", ["claude", "gem"])
async def test_other_upstreams_get_all_of_it(client: Client, fakes: Fakes, source: str) -> None:
    """In their own words: every text, every tool with its schema, every call with its result."""
    await turn(client, request(f"{source}/{MODEL}", conversation()))
    upstream: Any = getattr(fakes, source)
    got = upstream.last(MODEL).json
    texts = list(strings(got))
    for text in (INSTRUCTIONS, SKILLS, PERMISSIONS, PLACE, TASK, LARGE, CHANGE, "Success.", "Go on.", "cat a.txt"):
        assert any(text in found for found in texts), text[:60]
    for tool in tools():
        assert any(tool["name"] in found for found in texts)
    assert any(GRAMMAR in found for found in texts)


async def test_calls_of_every_kind_come_back_as_such(server: Server, upstream: UpstreamThread) -> None:
    """A call of an MCP server's tool has its namespace, one of a custom tool has its free text."""
    lookup, patch = tools()[-2], tools()[-3]
    async with client_of(server) as client:
        body = request("a/two-tools", [message("user", "call a tool")])
        done, _ = await turn(client, {**body, "tools": [lookup, patch]})
    assert [(item["type"], item.get("namespace"), item["name"]) for item in done] == [
        ("function_call", "mcp__docs", LONG_NAME),
        ("custom_tool_call", None, "apply_patch"),
    ]
    assert isinstance(done[1]["input"], str)
    assert len(tool_of(upstream.requests[-1].json["tools"], "mcp__docs__")["name"]) == 64


async def test_a_hosted_tool_is_refused_by_name(client: Client) -> None:
    """A search that only OpenAI can run is no secret: 400 with its place, before anything is asked."""
    body = request(f"oai/{MODEL}", conversation())
    body["tools"].append({"type": "web_search", "external_web_access": False})
    answer = await client.post("/v1/responses", body)
    assert (answer.status, answer.error["param"]) == (400, f"tools.{len(tools())}.type")
    assert "web_search" in answer.error["message"]


def called(call_id: str, name: str, arguments: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool_of(offered: list[Json], prefix: str) -> Json:
    """The one function whose name begins so."""
    (found,) = [tool["function"] for tool in offered if tool["function"]["name"].startswith(prefix)]
    return dict(found)


def strings(value: Any) -> Any:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
