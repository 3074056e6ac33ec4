"""``oauth.toml`` beside the policy directory: what the person lets his authorization server do.

    loopback = 8765                       # also serve http://127.0.0.1:8765; else the socket alone
    client_hosts = ["app.example"]        # whose clients' documents are fetched; else remit asks no host for any

    [client.inspector]                    # a client known beforehand: client_id "inspector"
    name = "MCP Inspector"
    redirect_uris = ["http://127.0.0.1/callback"]

    [resource."http://127.0.0.1:3000/mcp"]
    scope = "reader"                      # what a token for it has when the client names no scope

No session reaches the file. ``loopback`` is read when remitd starts, the rest when a request comes and the file has changed.
"""

from __future__ import annotations

import logging
import os
import tomllib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from remit_daemon.runtime.oauth.clients import (
    KNOWN,
    MAX_NAME,
    MAX_REDIRECTS,
    Client,
    check_redirect,
    check_resource,
)

log = logging.getLogger("remitd.oauth")

NAME = "oauth.toml"
MAX_FILE = 1 << 20  # bytes; a file of this size is a fault


def _redirect(uri: str) -> str:
    check_redirect(uri)
    return uri


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class KnownClient(_Strict):
    """A client that the person names."""

    name: Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    redirect_uris: list[Annotated[str, AfterValidator(_redirect)]] = Field(
        default=[], max_length=MAX_REDIRECTS
    )


class Resource(_Strict):
    """What the person says of a resource."""

    scope: str = ""


class Settings(_Strict):
    """The file."""

    loopback: int | None = Field(default=None, ge=1024, le=65535)
    client_hosts: list[Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")]] = []
    client: dict[Annotated[str, Field(pattern=f"^{KNOWN.pattern}$")], KnownClient] = {}
    resource: dict[Annotated[str, AfterValidator(check_resource)], Resource] = {}

    def known(self, ident: str) -> Client | None:
        """Return the client of that name, None when there is none."""
        found = self.client.get(ident)
        return None if found is None else Client(ident, ident, found.name, tuple(found.redirect_uris))

    def scope(self, resource: str) -> str:
        """Return the scopes of a token for ``resource`` where the client names none."""
        found = self.resource.get(resource)
        return found.scope if found else ""


class BadSettings(ValueError):
    """The file cannot be used; the text says where and why."""


def parse(text: str) -> Settings:
    """Return what ``text``, the file's content, says. Raises BadSettings."""
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as e:
        raise BadSettings(str(e)) from None
    except ValidationError as e:
        said = (f"{'.'.join(map(str, p['loc']))}: {p['msg'].lower()}" for p in e.errors(include_url=False))
        raise BadSettings("; ".join(said)) from None


class SettingsFile:
    """The file in ``directory``, read again when it has changed. One that is faulty changes nothing."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/{NAME}"
        self._stamp: tuple[int, ...] | None = None
        self._now = Settings()

    def now(self) -> Settings:
        """Return what holds now."""
        try:
            st = os.stat(self._path)
        except FileNotFoundError:
            self._stamp, self._now = None, Settings()
            return self._now
        except OSError as e:
            log.error("%s: %s", self._path, e.strerror or e)
            return self._now
        stamp = (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._now = parse(self._read())
            except (OSError, ValueError) as e:
                log.error("%s: what held before still holds: %s", self._path, e)
        return self._now

    def _read(self) -> str:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            raw = os.read(fd, MAX_FILE + 1)
        finally:
            os.close(fd)
        if len(raw) > MAX_FILE:
            raise BadSettings("too large")
        return raw.decode()
