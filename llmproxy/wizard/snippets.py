"""How to use the server from elsewhere: ready to be copied, with its address, and without its key. Pure.

A key is read from the file, or from the variable that the file names: it is never printed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from llmproxy.core.config import Config
from llmproxy.core.env import references
from llmproxy.web.routes import ROUTES

_ANY = ("0.0.0.0", "::", "localhost", "")


class Place(NamedTuple):
    """Where the server is: its address without `/v1`, the model to ask, and whether a key is needed."""

    url: str
    model: str
    locked: bool

    @property
    def key(self) -> str:
        """A key in a shell."""
        return '"$LLMPROXY_API_KEY"' if self.locked else "unused"


class Snippet(NamedTuple):
    """A piece of text to copy. `path` is the endpoint that it needs."""

    name: str
    title: str
    make: Callable[[Place], str]
    path: str = "/v1/chat/completions"


def place(config: Config, model: str = "llmproxy/auto") -> Place:
    """Where `config` listens, as this machine calls it."""
    host = "127.0.0.1" if config.server.host in _ANY else config.server.host
    shown = f"[{host}]" if ":" in host else host
    return Place(f"http://{shown}:{config.server.port}", model, bool(config.server.api_keys))


def key_line(config: Config, path: Path) -> str:
    """The line of a shell that puts the key into `LLMPROXY_API_KEY`; nothing where no key is needed."""
    if not config.server.api_keys:
        return ""
    written = config.server.api_keys[0].reference
    if written.startswith("${") and references(written):
        return f'export LLMPROXY_API_KEY="{written}"'
    program = 'import json, sys; print(json.load(open(sys.argv[1]))["server"]["api_keys"][0])'
    return f'export LLMPROXY_API_KEY="$(python3 -c {shlex.quote(program)} {shlex.quote(str(path))})"'


def available(paths: Collection[str] | None = None) -> list[Snippet]:
    """Those whose endpoint is served."""
    served = {route.path for route in ROUTES} if paths is None else paths
    return [snippet for snippet in SNIPPETS if snippet.path in served]


def _variables(at: Place) -> str:
    return f"export OPENAI_BASE_URL={at.url}/v1\nexport OPENAI_API_KEY={at.key}"


def _curl(at: Place) -> str:
    key = ' \\\n  -H "Authorization: Bearer $LLMPROXY_API_KEY"' if at.locked else ""
    body = f'{{"model": "{at.model}", "messages": [{{"role": "user", "content": "Say hello."}}]}}'
    return f"curl {at.url}/v1/chat/completions{key} \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"


def _python(at: Place) -> str:
    imports, key = ("import os\n\n", 'os.environ["LLMPROXY_API_KEY"]') if at.locked else ("", '"unused"')
    return f"""{imports}from openai import OpenAI

client = OpenAI(base_url="{at.url}/v1", api_key={key})
answer = client.chat.completions.create(
    model="{at.model}",
    messages=[{{"role": "user", "content": "Say hello."}}],
)
print(answer.choices[0].message.content)"""


def _node(at: Place) -> str:
    key = "process.env.LLMPROXY_API_KEY" if at.locked else '"unused"'
    return f"""import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{at.url}/v1", apiKey: {key} }});
const answer = await client.chat.completions.create({{
  model: "{at.model}",
  messages: [{{ role: "user", content: "Say hello." }}],
}});
console.log(answer.choices[0].message.content);"""


def _anthropic(at: Place) -> str:
    imports, key = ("import os\n\n", 'os.environ["LLMPROXY_API_KEY"]') if at.locked else ("", '"unused"')
    return f"""{imports}from anthropic import Anthropic

client = Anthropic(base_url="{at.url}", api_key={key})
answer = client.messages.create(
    model="{at.model}",
    max_tokens=1000,
    messages=[{{"role": "user", "content": "Say hello."}}],
)
print(answer.content[0].text)"""


def _claude_code(at: Place) -> str:
    return f"""export ANTHROPIC_BASE_URL={at.url}
export ANTHROPIC_AUTH_TOKEN={at.key}
export ANTHROPIC_MODEL={at.model}
export ANTHROPIC_DEFAULT_HAIKU_MODEL={at.model}
claude"""


def _open_webui(at: Place) -> str:
    return f"""# Settings, Connections, OpenAI API: the address {at.url}/v1, the key {at.key}; or at its start:
OPENAI_API_BASE_URL={at.url}/v1 OPENAI_API_KEY={at.key} open-webui serve
# In a container of its own it needs this machine's address in place of 127.0.0.1, and llmproxy must listen there."""


def _continue(at: Place) -> str:
    key = "${{ secrets.LLMPROXY_API_KEY }}" if at.locked else "unused"
    return f"""# ~/.continue/config.yaml
name: llmproxy
version: 1.0.0
schema: v1
models:
  - name: llmproxy
    provider: openai
    model: {at.model}
    apiBase: {at.url}/v1
    apiKey: {key}
    roles: [chat, edit, apply]"""


SNIPPETS = (
    Snippet("env", "environment variables of most programs", _variables),
    Snippet("curl", "curl", _curl),
    Snippet("python", "OpenAI SDK, Python", _python),
    Snippet("node", "OpenAI SDK, Node", _node),
    Snippet("anthropic", "Anthropic SDK, Python", _anthropic, "/v1/messages"),
    Snippet("claude-code", "Claude Code", _claude_code, "/v1/messages"),
    Snippet("open-webui", "Open WebUI", _open_webui),
    Snippet("continue", "Continue", _continue),
)
