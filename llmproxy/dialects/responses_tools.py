"""Tools of OpenAI's Responses API → canonical functions, and back to what a call of one is called there.

A custom tool is a function of one free text. The members of a namespace (how Codex offers the tools of MCP servers)
are functions whose names begin with that of the namespace. Hosted tools are refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject
from llmproxy.dialects.responses_items import FREE_TEXT, flat_name


class Origin(NamedTuple):
    """What a canonical function is in the client's own request."""

    name: str
    namespace: str | None = None
    custom: bool = False


def read_tools(body: JsonObject) -> JsonObject:
    """`tools`, `tool_choice` and `parallel_tool_calls` of the canonical body; raises `InvalidRequest`."""
    given = body.get("tools")
    if given is not None and not isinstance(given, list):
        raise InvalidRequest("tools must be a list", param="tools")
    tools = [one for place, tool in enumerate(given or ()) for one in _tool(tool, f"tools.{place}")]
    choice = body.get("tool_choice")
    if not tools and choice in (None, "auto", "none"):
        return {}  # there is nothing to choose from, and upstreams refuse a choice then
    found: JsonObject = {"tools": tools} | _choice(choice, tools)
    if body.get("parallel_tool_calls") is not None:
        found["parallel_tool_calls"] = body["parallel_tool_calls"]
    return found


def origins(tools: Any) -> Mapping[str, Origin]:
    """Where the canonical functions come from, by name, as far as a call of one is called otherwise."""
    found: dict[str, Origin] = {}
    for tool in _objects(tools):
        if tool.get("type") == "custom":
            found[str(tool.get("name"))] = Origin(str(tool.get("name")), custom=True)
        elif tool.get("type") == "namespace":
            namespace = str(tool.get("name"))
            for member in _objects(tool.get("tools")):
                name = str(member.get("name"))
                found[flat_name(namespace, name)] = Origin(name, namespace, member.get("type") == "custom")
    return found


def _objects(value: Any) -> Iterator[JsonObject]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _tool(tool: Any, path: str) -> list[JsonObject]:
    """A tool as functions: one, or all of a namespace."""
    if not isinstance(tool, dict) or tool.get("type") != "namespace":
        return [_function(tool, path)]
    namespace, members = tool.get("name"), tool.get("tools")
    if not isinstance(namespace, str) or not namespace:
        raise InvalidRequest("a namespace needs a name", param=f"{path}.name")
    if not isinstance(members, list):
        raise InvalidRequest("a namespace needs tools", param=f"{path}.tools")
    found = [_function(member, f"{path}.tools.{place}", namespace) for place, member in enumerate(members)]
    if found and isinstance(about := tool.get("description"), str) and about:
        first = found[0]["function"]
        first["description"] = f"{first.get('description') or ''}\n\nOf {namespace}: {about}".strip()
    return found


def _function(tool: Any, path: str, namespace: str | None = None) -> JsonObject:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in ("function", "custom"):
        raise InvalidRequest(
            f"the tool {kind} is not offered here; functions and custom tools are", param=f"{path}.type"
        )
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a tool needs a name", param=f"{path}.name")
    function: JsonObject = {"name": flat_name(namespace, name)}
    if tool.get("description"):
        function["description"] = tool["description"]
    if kind == "custom":
        return {"type": "function", "function": {**function, **_free_text(tool)}}
    parameters = tool.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest("parameters must be a JSON schema", param=f"{path}.parameters")
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _free_text(tool: JsonObject) -> JsonObject:
    """A grammar is told to the model: nobody but OpenAI can hold it to one."""
    form = tool.get("format")
    told = str(tool.get("description") or "")
    if isinstance(form, dict) and form.get("type") == "grammar":
        told += f"\n\nThe input must follow this grammar ({form.get('syntax')}):\n{form.get('definition')}"
    schema = {
        "type": "object",
        "properties": {FREE_TEXT: {"type": "string"}},
        "required": [FREE_TEXT],
        "additionalProperties": False,
    }
    return {"description": told.strip(), "parameters": schema}


def _choice(choice: Any, tools: list[JsonObject]) -> JsonObject:
    """`tool_choice`, and `tools` where only some of them may be called: then only those are offered."""
    if choice is None:
        return {}
    if choice in ("auto", "none", "required"):
        return {"tool_choice": choice}
    offered = {tool["function"]["name"]: tool for tool in tools}
    if not (isinstance(choice, dict) and choice.get("type") == "allowed_tools"):
        return {"tool_choice": {"type": "function", "function": {"name": _named(choice, offered)}}}
    mode, allowed = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(allowed, list) or not allowed:
        raise InvalidRequest("allowed_tools needs a mode and tools", param="tool_choice")
    return {"tools": [offered[_named(tool, offered)] for tool in allowed], "tool_choice": mode}


def _named(tool: Any, offered: Collection[str]) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in ("function", "custom"):
        raise InvalidRequest(f"the tool {kind} is not offered here", param="tool_choice")
    name, namespace = tool.get("name"), tool.get("namespace")
    flat = flat_name(namespace if isinstance(namespace, str) else None, name) if isinstance(name, str) else None
    if flat is None or flat not in offered:
        raise InvalidRequest("tool_choice asks for a tool that is not in tools", param="tool_choice")
    return flat
