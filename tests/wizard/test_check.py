"""`llmproxy check --live` tells what is wrong with a set-up, and how to mend it."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import command, unreachable
from tests.wizard.conftest import BROKE, RIGHT, WRONG

Finding = dict[str, Any]


def check(
    home: Path, config: dict[str, Any], *options: str, mode: int = 0o600, **env: str
) -> tuple[int, list[Finding]]:
    """The exit code and the findings."""
    path = home / "config.json"
    path.write_text(json.dumps({"local": {"models": []}, **config}), "utf-8")
    path.chmod(mode)
    arguments = options or ("--live",)
    ended = command("check", "--json", *arguments, "--config", str(path), home=home, env=env)
    body = json.loads(ended.stdout)
    assert RIGHT not in ended.stdout + ended.stderr
    assert body["ok"] == (ended.returncode == 0)
    found: list[Finding] = body["findings"]
    assert all(one["where"] and one["problem"] and one["mend"] for one in found)
    return ended.returncode, found


def only(found: list[Finding]) -> Finding:
    """The one finding that there is."""
    assert len(found) == 1, found
    return found[0]


def test_a_good_set_up_has_no_findings(gate: UpstreamThread, tmp_path: Path) -> None:
    """Exit code 0, and nothing to mend."""
    config = {
        "providers": {"a": {"base_url": gate.url, "api_key": "${KEY}"}},
        "aliases": {"x": "a/ok"},
        "pools": {"p": {"where": {"models": ["a/ok"], "providers": ["a"]}}},
    }
    assert check(tmp_path, config, KEY=RIGHT) == (0, [])


@pytest.mark.parametrize(
    ("key", "problem", "mend"),
    [(WRONG, "is not accepted (401", "Make a new key"), (BROKE, "no credit left (402", "free quota renews")],
    ids=["wrong", "no credit"],
)
def test_a_key_that_is_refused(gate: UpstreamThread, tmp_path: Path, key: str, problem: str, mend: str) -> None:
    """A public list says nothing of the key: the call does, and the finding does not repeat it."""
    code, found = check(tmp_path, {"providers": {"a": {"base_url": gate.url, "api_key": key}}})
    finding = only(found)
    assert (code, finding["where"]) == (1, "providers.a")
    assert problem in finding["problem"]
    assert mend in finding["mend"]
    assert key not in json.dumps(finding)


def test_a_key_that_the_provider_repeats(gate: UpstreamThread, tmp_path: Path) -> None:
    """A provider may print the key in its refusal; a finding shows its ends only."""
    odd = "an-odd-key-of-no-known-kind"
    gate.upstream.keys[odd] = f"status-401+message=no-such-key-{odd}"
    _, found = check(tmp_path, {"providers": {"a": {"base_url": gate.url, "api_key": odd}}})
    assert "no-such-key-an-…nd" in only(found)["problem"]
    assert odd not in json.dumps(found)


def test_a_variable_is_named(gate: UpstreamThread, tmp_path: Path) -> None:
    """A key from the environment is told by its variable, whether it is wrong or not set."""
    config = {"providers": {"a": {"base_url": gate.url, "api_key": "${A_KEY}"}}}
    _, wrong = check(tmp_path, config, A_KEY=WRONG)
    assert "${A_KEY}" in only(wrong)["problem"]
    assert "set A_KEY" in only(wrong)["mend"]
    _, missing = check(tmp_path, config)
    assert "A_KEY is not set" in only(missing)["problem"]
    assert "export A_KEY=" in only(missing)["mend"]


def test_a_second_key_is_tried_too(gate: UpstreamThread, tmp_path: Path) -> None:
    """Of several keys the one that is refused is told."""
    keys = [RIGHT, WRONG]
    code, found = check(tmp_path, {"providers": {"a": {"base_url": gate.url, "api_keys": keys}}})
    assert code == 1
    assert "sk-…ef is not accepted" in only(found)["problem"]


def test_one_of_two_variables_is_not_set(gate: UpstreamThread, tmp_path: Path) -> None:
    """The other key works, so this is told and nothing fails."""
    config = {"providers": {"a": {"base_url": gate.url, "api_keys": ["${A_KEY}", "${B_KEY}"]}}}
    code, found = check(tmp_path, config, A_KEY=RIGHT)
    assert (code, only(found)["fatal"]) == (0, False)
    assert "B_KEY" in only(found)["problem"]


def test_an_address_without_v1(gate: UpstreamThread, tmp_path: Path) -> None:
    """The usual mistake of an address is told with the usual end."""
    url = gate.url.removesuffix("/v1")
    code, found = check(tmp_path, {"providers": {"a": {"base_url": url}}})
    assert code == 1
    assert f"nothing at {url}/models (404)" in only(found)["problem"]
    assert "ends in /v1" in only(found)["mend"]


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("html", "no JSON, such as a web page"),
        ("500", "in trouble (500"),
        ("301", "sends elsewhere (301"),
        ("410", "was shut down (410"),
    ],
)
def test_a_list_that_cannot_be_had(tmp_path: Path, fault: str, problem: str) -> None:
    """A web page, a provider in trouble, one that is gone: each is told apart."""
    with UpstreamThread(models_fault=fault) as upstream:
        code, found = check(tmp_path, {"providers": {"a": {"base_url": upstream.url}}})
    assert code == 1
    assert problem in only(found)["problem"]


def test_an_empty_list(tmp_path: Path) -> None:
    """A server on this machine without a model."""
    with UpstreamThread(models=[]) as upstream:
        code, found = check(tmp_path, {"providers": {"a": {"base_url": upstream.url}}})
    assert code == 1
    assert "Load or pull a model" in only(found)["mend"]


def test_nobody_listens(tmp_path: Path) -> None:
    """A server on this machine that does not run."""
    with unreachable() as nowhere:
        code, found = check(tmp_path, {"providers": {"a": {"base_url": nowhere}}})
    assert code == 1
    assert f"nothing listens at {nowhere}" in only(found)["problem"]


def test_a_host_that_does_not_exist(tmp_path: Path) -> None:
    """A typing error in a name."""
    code, found = check(tmp_path, {"providers": {"a": {"base_url": "http://nobody.invalid/v1"}}})
    assert code == 1
    assert only(found)["problem"] == "there is no host nobody.invalid"


def test_a_proxy_that_is_down(gate: UpstreamThread, tmp_path: Path) -> None:
    """The proxy is blamed, not the provider."""
    with unreachable() as nowhere:
        proxy = nowhere.removesuffix("/v1")
        code, found = check(tmp_path, {"providers": {"a": {"base_url": gate.url, "proxy": proxy}}})
    assert code == 1
    assert "proxy" in only(found)["problem"]
    assert "providers.a.proxy" in only(found)["mend"]


def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    """TLS trouble is told as such."""
    with self_signed(tmp_path) as url:
        code, found = check(tmp_path, {"providers": {"a": {"base_url": url}}})
    assert code == 1
    assert "no secure connection" in only(found)["problem"]
    assert "SSL_CERT_FILE" in only(found)["mend"]


def test_http_where_https_is_spoken(tmp_path: Path) -> None:
    """The other way round: the scheme is what to look at."""
    with self_signed(tmp_path) as url:
        code, found = check(tmp_path, {"providers": {"a": {"base_url": url.replace("https", "http")}}})
    assert code == 1
    assert "base_url" in only(found)["mend"]


@pytest.mark.parametrize(
    ("patterns", "code", "fatal"), [(["nothing-*"], 1, True), (["ok", "nothing-*"], 0, False)], ids=["all", "one"]
)
def test_a_filter_that_lets_nothing_through(
    gate: UpstreamThread, tmp_path: Path, patterns: list[str], code: int, fatal: bool
) -> None:
    """A pattern without a model is told; without any model left the provider is no use."""
    config = {"providers": {"a": {"base_url": gate.url, "model_filter": patterns}}}
    ended, found = check(tmp_path, config)
    (finding,) = (one for one in found if one["where"].endswith("model_filter"))
    assert (ended, finding["fatal"]) == (code, fatal)
    assert "nothing-*" in finding["problem"]


def test_names_that_stand_for_nothing(gate: UpstreamThread, tmp_path: Path) -> None:
    """Aliases and pools are followed to their models."""
    config = {
        "providers": {"a": {"base_url": gate.url}},
        "aliases": {"lost": "nobody/nothing", "close": "a/okk", "empty": "llmproxy/deep"},
        "pools": {"none": {"where": {"models": ["b/*"]}}, "half": {"where": {"models": ["a/ok", "a/gone"]}}},
    }
    code, found = check(tmp_path, config)
    told = {(one["where"], one["fatal"]) for one in found}
    assert code == 1
    assert told == {
        ("aliases.lost", True),
        ("aliases.close", False),
        ("aliases.empty", True),
        ("pools.none", False),
        ("pools.none", True),
        ("pools.half", False),
    }
    close = next(one for one in found if one["where"] == "aliases.close")
    assert "a/ok" in close["mend"]


def test_names_at_a_provider_that_fails_are_not_blamed(tmp_path: Path) -> None:
    """One cause, one finding: an alias into a provider that is down is not wrong."""
    with unreachable() as nowhere:
        config = {
            "providers": {"a": {"base_url": nowhere}},
            "aliases": {"x": "a/ok"},
            "pools": {"p": {"where": {"models": ["a/ok"]}}},
        }
        _, found = check(tmp_path, config)
    assert only(found)["where"] == "providers.a"


def test_open_doors(gate: UpstreamThread, tmp_path: Path) -> None:
    """Beyond loopback without keys, and a file that others may read."""
    config = {"providers": {"a": {"base_url": gate.url}}, "server": {"host": "0.0.0.0"}}
    code, found = check(tmp_path, config, mode=0o644)
    told = {one["where"]: one for one in found}
    assert code == 1
    assert told["server.host"]["fatal"]
    assert "llmproxy setup" in told["server.host"]["mend"]
    path = str(tmp_path / "config.json")
    assert not told[path]["fatal"]
    assert told[path]["mend"] == f"Run: chmod 600 {path}"


def test_weights_that_are_missing(gate: UpstreamThread, tmp_path: Path) -> None:
    """The command that fetches them is told."""
    config = {"providers": {"a": {"base_url": gate.url}}, "local": {"models": ["someone/nothing", "./nowhere"]}}
    code, found = check(tmp_path, config, "--live")
    assert code == 1
    assert {one["where"] for one in found} == {"local.models"}
    assert any("llmproxy pull someone/nothing" in one["mend"] for one in found)
    assert any("./nowhere" in one["problem"] for one in found)


def test_people_read_it_too(gate: UpstreamThread, tmp_path: Path) -> None:
    """Without `--json` the findings stand under the table, with what mends them."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"providers": {"a": {"base_url": gate.url, "api_key": WRONG}}, "local": {"models": []}}))
    path.chmod(0o644)
    ended = command("check", "--live", "--config", str(path), home=tmp_path)
    assert ended.returncode == 1
    assert "To mend\n- providers.a: the key" in ended.stdout
    assert "To look at\n" in ended.stdout
    assert "chmod 600" in ended.stdout


@contextlib.contextmanager
def self_signed(folder: Path) -> Iterator[str]:
    """An HTTPS server with a certificate of its own."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = _Quiet(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that do not trust the certificate are the point."""
