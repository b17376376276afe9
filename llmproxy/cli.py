"""The command line: each body parses and calls one function; errors become exit codes.

Exit codes: 0 fine; 1 something asked for does not work; 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from llmproxy import __version__
from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError, LlmproxyError
from llmproxy.core.types import CAPABILITIES

F = TypeVar("F", bound=Callable[..., Any])


class Failing(click.ClickException):
    """An error of ours, as click shows it."""

    def __init__(self, error: LlmproxyError) -> None:
        super().__init__(error.message)
        self.code = 2 if isinstance(error, ConfigError) else 1

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click reads it, whatever it is made of
        return self.code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmproxy")
def main() -> None:
    """One OpenAI endpoint over your own torch models and every provider's free tier."""


def with_config(command: F) -> F:
    """The option that every command has."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration file; else $LLMPROXY_CONFIG, else ~/.config/llmproxy/config.json.",
    )(command)


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def read_config(path: Path | None) -> tuple[Config, Path | None]:
    """The configuration and the file that it came from; the defaults when no file was named and none is there."""
    chosen = path or configuration.default_path()
    if path is None and not chosen.exists() and "LLMPROXY_CONFIG" not in _environ():
        return Config(), None
    try:
        return configuration.load(chosen), chosen
    except ConfigError as error:
        raise Failing(error) from error


@main.command()
@with_config
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False))
@click.option("--no-local", is_flag=True, help="Do not run local models.")
@click.option("--strict", is_flag=True, help="End if a local model of the configuration cannot be loaded at the start.")
@click.option(
    "--state", "state_url", metavar="URL", help="Where counts are kept: sqlite, memory, redis://HOST:PORT/DB."
)
@click.option("--workers", type=click.IntRange(1), default=1, help="So many processes; more than one needs a Redis.")
def serve(
    config_path: Path | None,
    host: str | None,
    port: int | None,
    log_level: str | None,
    no_local: bool,
    strict: bool,
    state_url: str | None,
    workers: int,
) -> None:
    """Serve until stopped."""
    from llmproxy import logs
    from llmproxy import workers as processes

    config, path = read_config(config_path)
    given = {"host": host, "port": port, "log_level": log_level.upper() if log_level else None}
    server = config.server.model_copy(update={key: value for key, value in given.items() if value is not None})
    logs.set_up(server.log_level)
    try:
        config = config.with_server(server)
        config = config if state_url is None else config.with_state(state_url)
        config = config.with_strict_start() if strict else config
        processes.run(config, path=path, local=not no_local, workers=workers)
    except LlmproxyError as error:
        raise Failing(error) from error


@main.command()
@with_config
@as_json_option
@click.option("--no-local", is_flag=True, help="Leave local models out.")
def models(config_path: Path | None, as_json: bool, no_local: bool) -> None:
    """What can be routed now: capabilities, health, why a candidate is out, what is missing for more."""
    from llmproxy import inspection

    body = _run(lambda config, path: inspection.candidates(config, path, local=not no_local), config_path)
    _print(body, inspection.show_candidates, as_json)


@main.command()
@click.argument("model")
@with_config
@as_json_option
@click.option("--tools", is_flag=True, help="The call uses tools.")
@click.option("--vision", is_flag=True, help="The call has images.")
@click.option("--json-output", "json_output", is_flag=True, help="The call asks for JSON.")
@click.option("--needs", multiple=True, type=click.Choice(sorted(CAPABILITIES)), help="Any other capability.")
@click.option("--tokens", type=click.IntRange(0), default=0, help="Tokens of the prompt.")
def explain(
    model: str,
    config_path: Path | None,
    as_json: bool,
    tools: bool,
    vision: bool,
    json_output: bool,
    needs: tuple[str, ...],
    tokens: int,
) -> None:
    """The plan for a call of MODEL: each candidate that is kept or dropped, and why."""
    from llmproxy import inspection

    wanted = {*needs, *(name for name, on in (("tools", tools), ("vision", vision), ("json", json_output)) if on)}
    body = _run(lambda config, path: inspection.explain(config, path, model, sorted(wanted), tokens), config_path)
    _print(body, inspection.show_plan, as_json)
    if not body["kept"]:
        sys.exit(1)


@main.command()
@with_config
@as_json_option
@click.option("--live", is_flag=True, help="Also make one tiny real call to each provider.")
def check(config_path: Path | None, as_json: bool, live: bool) -> None:
    """Check the configuration, the keys, and whether each provider can be reached; tell how to mend what is wrong."""
    from llmproxy.wizard import check as checking

    body = _run(lambda config, path: checking.check(config, live=live, path=path), config_path)
    _print(body, checking.show, as_json)
    if not body["ok"]:
        sys.exit(1)


@main.command()
@with_config
@click.option("--non-interactive", is_flag=True, help="Ask nothing: do what the other options say.")
@click.option("--plain", is_flag=True, help="Ask in plain lines, without arrow keys.")
@click.option(
    "--provider", "providers", multiple=True, metavar="NAME[=VARIABLE]", help="Use it; its key is in VARIABLE."
)
@click.option("--provider-url", "provider_urls", multiple=True, metavar="NAME=URL", help="Its address.")
@click.option("--keys-from-environment", is_flag=True, help="Use every provider whose usual variable is set.")
@click.option("--without", multiple=True, metavar="NAME", help="Remove a provider.")
@click.option("--find-servers", is_flag=True, help="Use Ollama, LM Studio, llama.cpp and vLLM where they run here.")
@click.option("--server-port", "server_ports", multiple=True, metavar="NAME=PORT", help="Look for such a server there.")
@click.option("--local", "local_models", multiple=True, metavar="MODEL", help="Run it here; several replace the list.")
@click.option("--no-local", is_flag=True, help="Run no model here.")
@click.option("--pull", is_flag=True, help="Download what --local names.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME=TARGET", help="Another name for a model or pool.")
@click.option("--pool", "pools", multiple=True, metavar="NAME=GLOB,...", help="A pool of these models, in this order.")
@click.option("--host", help="Address to listen on; beyond this machine a key is made.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--new-key", is_flag=True, help="Add a new key for clients.")
@click.option(
    "--test/--no-test", default=True, help="Call the providers, and once through all; else nothing is written."
)
@click.option("--snippets", is_flag=True, help="Print how to use it from elsewhere.")
def setup(config_path: Path | None, **wishes: Any) -> None:
    """Set llmproxy up, or change its set-up: providers, keys, local models, names, address."""
    from llmproxy.wizard import flags, run

    try:
        sys.exit(run.setup(config_path or configuration.default_path(), flags.Wishes(**wishes)))
    except LlmproxyError as error:
        raise Failing(error) from error


@main.command()
@with_config
@as_json_option
@click.option("--source", "sources", default="", metavar="A,B", help="Only these sources.")
@click.option("--provider", default="", help="Only sources that say something of this provider.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and keep nothing.")
@click.option("--from", "from_folder", type=click.Path(file_okay=False, path_type=Path), help="Read saved replies.")
@click.option("--save", "save_folder", type=click.Path(file_okay=False, path_type=Path), help="Save the replies.")
@click.option(
    "--probe",
    "probes",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=20,
    default=0,
    metavar="[N]",
    help="Also send tiny real requests to N (20) free models.",
)
@click.option(
    "--write-catalog",
    type=click.Path(dir_okay=False, path_type=Path),
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Also write what was found into the catalogue of providers.",
)
@click.option("--status", "mode", flag_value="status", help="Show the version in use, the last refresh, and versions.")
@click.option("--rollback", "mode", flag_value="rollback", help="Go back to the version before, and hold it.")
@click.option("--to", "to_version", type=click.IntRange(1), help="With --rollback: to this version.")
def scrape(config_path: Path | None, as_json: bool, **wishes: Any) -> None:
    """Look up what providers give away today, once; the server also does it on a schedule."""
    from llmproxy import scraping

    found, path = read_config(config_path)
    try:
        body, show_text, ok = scraping.run(found, path, scraping.Wishes(**wishes))
    except LlmproxyError as error:
        raise Failing(error) from error
    _print(body, show_text, as_json)
    if not ok:
        sys.exit(1)


@main.command()
@click.argument("names", metavar="MODEL...", nargs=-1, required=True)
def pull(names: tuple[str, ...]) -> None:
    """Download the weights of models from the hub, with a progress bar."""
    from backends.weights import WeightsMissing, resolve
    from backends.weights import pull as download

    for name in names:
        try:
            folder = download(name)
            resolve(name)
        except WeightsMissing as error:
            raise click.ClickException(str(error)) from error
        except ImportError as error:
            raise click.ClickException("pulling models needs the local extra: pip install 'llmproxy[local]'") from error
        click.echo(f"{name} is in {folder}; add it to local.models")


@main.command()
@with_config
@as_json_option
@click.option("--demand", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSONL of requests.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=24.0, show_default=True, help="Of it.")
@click.option("--fail", default="", help="Providers that never answer, with commas between them.")
@click.option("--hidden", type=click.Path(dir_okay=False, path_type=Path), help="The true limits, as free_limits.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="SVG of what is left over time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn by chance.")
def simulate(
    config_path: Path | None,
    as_json: bool,
    demand: Path,
    hours: float,
    fail: str,
    hidden: Path | None,
    plot: Path | None,
    seed: int,
) -> None:
    """Replay a demand against the configured free limits on a clock of its own, through the server's routing."""
    from llmproxy.simulation import report

    found, _ = read_config(config_path)
    try:
        names = [name.strip() for name in fail.split(",") if name.strip()]
        body = report.simulate(found, demand, hours=hours, fail=names, hidden=hidden, seed=seed, plot=plot)
    except LlmproxyError as error:
        raise Failing(error) from error
    _print(body, report.show, as_json)


@main.group()
def config() -> None:
    """The configuration itself."""


@config.command()
def schema() -> None:
    """Print the JSON schema of the configuration file."""
    click.echo(json.dumps(Config.model_json_schema(), indent=2))


@config.command()
@with_config
def show(config_path: Path | None) -> None:
    """Print the effective configuration, with secrets masked."""
    found, path = read_config(config_path)
    click.echo(f"// {path or 'defaults: there is no configuration file'}", err=True)
    click.echo(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))


def _run(work: Callable[[Config, Path | None], Any], config_path: Path | None) -> dict[str, Any]:
    """Run one inspection; its result is a JSON object."""
    import asyncio

    found, path = read_config(config_path)
    try:
        body: dict[str, Any] = asyncio.run(work(found, path))
    except LlmproxyError as error:
        raise Failing(error) from error
    return body


def _print(body: dict[str, Any], show_text: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(body, indent=2, ensure_ascii=False))
    else:
        show_text(body)


def _environ() -> Any:
    import os

    return os.environ
