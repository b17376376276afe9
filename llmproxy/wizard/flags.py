"""The same without questions: every answer is a flag."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llmproxy.core.errors import ConfigError
from llmproxy.wizard import listen, local, machine, pools, providers, servers
from llmproxy.wizard.desk import Desk, in_catalogue

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for. `NAME=…` pairs are as they were typed."""

    non_interactive: bool = False
    plain: bool = False
    providers: tuple[str, ...] = ()
    provider_urls: tuple[str, ...] = ()
    keys_from_environment: bool = False
    without: tuple[str, ...] = ()
    find_servers: bool = False
    server_ports: tuple[str, ...] = ()
    local_models: tuple[str, ...] = ()
    no_local: bool = False
    pull: bool = False
    aliases: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    new_key: bool = False
    test: bool = True
    snippets: bool = False

    def ports(self) -> dict[str, int]:
        """Where to look for servers; raises `ConfigError`."""
        found = dict(servers.PORTS)
        for name, value in _pairs("--server-port", self.server_ports):
            if listen.port_problem(value) or not int(value):
                raise ConfigError(f"--server-port: {name}={value}: the port is a number up to 65535")
            found[name] = int(value)
        return found


def apply(desk: Desk, wishes: Wishes) -> None:
    """Put everything that flags say into the draft; raises `ConfigError` for what cannot be."""
    for name in wishes.without:
        desk.draft.remove("providers", name)
    for name, url in _pairs("--provider-url", wishes.provider_urls):
        _put_url(desk, name, url)
    for text in wishes.providers:
        _put_provider(desk, text)
    if wishes.keys_from_environment:
        providers.use_variables(
            desk, [entry.id for entry in providers.likely_wanted(providers.found_in_environment(desk))]
        )
    if wishes.find_servers:
        for server in servers.new(desk, servers.find(desk.ports)):
            servers.use(desk, server)
            desk.ask.say(f"Found {server.title}.")
    if wishes.no_local:
        desk.draft.put([], "local", "models")
    elif wishes.local_models:
        local.set_models(desk, list(wishes.local_models))
    _put_names(desk, wishes)
    _put_server(desk, wishes)
    desk.draft.config()


def _put_url(desk: Desk, name: str, url: str) -> None:
    known = in_catalogue(name) or desk.draft.get("providers", name) is not None
    problem = ("" if known else providers.name_problem(desk, name)) or providers.url_problem(url)
    if problem:
        raise ConfigError(f"--provider-url: {name}={url}: {problem}")
    desk.draft.put(url.rstrip("/"), "providers", name, "base_url")


def _put_provider(desk: Desk, text: str) -> None:
    """`NAME`, whose key is in its usual variable, or `NAME=VARIABLE`."""
    name, given, variable = text.partition("=")
    if not in_catalogue(name) and desk.draft.get("providers", name) is None:
        raise ConfigError(f"--provider: {name} is not known: give its address too, --provider-url {name}=https://…")
    if not given:
        if desk.draft.get("providers", name) is None:
            desk.draft.put({}, "providers", name)
        if in_catalogue(name) and not desk.draft.get("providers", name, "api_key"):
            providers.use_variables(desk, [name])
    elif not _VARIABLE.fullmatch(variable):
        # It may be a key: it is not repeated, and it would be in the list of processes.
        raise ConfigError(f"--provider: {name}=VARIABLE takes the name of an environment variable, never a key")
    else:
        desk.draft.put("${" + variable + "}", "providers", name, "api_key")
    if desk.draft.get("providers", name, "enabled") is False:
        desk.draft.remove("providers", name, "enabled")


def _put_names(desk: Desk, wishes: Wishes) -> None:
    for name, target in _pairs("--alias", wishes.aliases):
        _refuse("--alias", name, pools.alias_problem)
        desk.draft.put(target, "aliases", name)
    for name, globs in _pairs("--pool", wishes.pools):
        _refuse("--pool", name, pools.pool_problem)
        desk.draft.put(pools.pool_of([glob.strip() for glob in globs.split(",") if glob.strip()]), "pools", name)


def _put_server(desk: Desk, wishes: Wishes) -> None:
    if wishes.host is not None:
        _refuse("--host", wishes.host, listen.host_problem)
        listen.set_host(desk, wishes.host)
    if wishes.port is not None:
        desk.draft.put(wishes.port, "server", "port")
    if wishes.new_key:
        written = desk.draft.get("server", "api_keys", default=())
        desk.draft.put([*written, listen.new_key()], "server", "api_keys")


def _refuse(flag: str, value: str, problem: Callable[[str], str]) -> None:
    if found := problem(value):
        raise ConfigError(f"{flag}: {value}: {found}")


def _pairs(flag: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, given, value in pairs:
        if not (name and given and value):
            raise ConfigError(f"{flag}: {name}{given}{value} is not of the form NAME=VALUE")
    return [(name, value) for name, _, value in pairs]


def works(desk: Desk, wishes: Wishes) -> bool:
    """Whether what the flags ask for works; tells what does not, and how to mend it."""
    fine = _weights(desk, wishes)
    if not wishes.test:
        return fine
    names = desk.providers()
    for told in (desk.probe(names) if names else {}).values():
        desk.tell(told)
        fine = fine and told.key_works
    return fine


def _weights(desk: Desk, wishes: Wishes) -> bool:
    """Whether the files of the local models that were asked for are here, or could be fetched."""
    known = desk.known_models()
    fine = True
    for name in wishes.local_models:
        if machine.is_here(name, known):
            continue
        problem = local.download(name, known) if wishes.pull else f"{name} is not here; add --pull to download it"
        if problem:
            desk.bad(problem)
            if wishes.pull:
                desk.ask.say(f"    {local.download_mend(name, problem, known)}")
            fine = False
    return fine
