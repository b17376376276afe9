"""Who may come in: beyond loopback only with keys."""

from __future__ import annotations

import ipaddress

from llmproxy.core.config import Config
from llmproxy.core.env import MissingVariable
from llmproxy.core.errors import ConfigError


def check_access(config: Config) -> None:
    """Refuse to listen beyond loopback without keys."""
    server = config.server
    for index, secret in enumerate(server.api_keys):
        try:
            usable = bool(secret.reveal())
        except MissingVariable as error:
            raise ConfigError(f"server.api_keys.{index}: {error}") from error
        if not usable:
            raise ConfigError(f"server.api_keys.{index}: the key is empty")
    if not server.api_keys and not _is_loopback(server.host):
        raise ConfigError(
            f"server.host: {server.host} can be reached from other machines, so server.api_keys must hold a key; "
            "or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
