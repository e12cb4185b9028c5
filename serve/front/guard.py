"""Who may ask for what, and how often. Knows keys and headers, not what a request says."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftlib.files.hosts import host_of, is_loopback
from ftlib.registry.keys import Key, Keys
from serve.engine.messages import Refusal, Refused, printable

NOBODY = Key("anonymous", "")


@dataclass
class Bucket:
    """Requests that may be made now, refilled at `per_minute`, up to a minute's worth."""

    per_minute: float
    left: float = field(init=False)
    filled: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.filled = self.per_minute, time.monotonic()

    def take(self) -> float:
        """Takes one; or returns how many seconds until there is one."""
        now = time.monotonic()
        self.left = min(self.per_minute, self.left + (now - self.filled) * self.per_minute / 60)
        self.filled = now
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) * 60 / self.per_minute


class Guard:
    """With neither one key nor a file of keys, this machine is let in and no other: `ftlib serve` refuses to bind wider
    then, but Serve's own tools bind to every address unless told otherwise. On this machine a browser runs what
    strangers wrote, so without a key the request has to name a host that is ours, and come from no other site."""

    def __init__(self, api_key: str | None, keys: Path | None, hosts: Sequence[str] = ()) -> None:
        self._api_key, self._keys = api_key, Keys.load(keys) if keys else None
        self._hosts = {host.lower() for host in hosts}
        self._buckets: dict[str, Bucket] = {}

    @property
    def _open(self) -> bool:
        return self._api_key is None and self._keys is None

    def admit(self, authorization: str, peer: str, counted: bool = True) -> Key:
        """The key's owner. `peer` is the address that asks. Raises Refused without a key that is known, and when it is
        used too often."""
        if self._open:
            if not is_loopback(peer):
                message = "This endpoint has no API key, so it answers its own machine alone: give it api_key or keys."
                raise Refused(Refusal(message, None, "invalid_api_key", 401))
            return NOBODY
        scheme, _, token = authorization.partition(" ")
        key = self._find(token.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            message = "The API key is missing or wrong: send it as 'Authorization: Bearer KEY'."
            raise Refused(Refusal(message, None, "invalid_api_key", 401))
        if counted and key.requests_per_minute is not None:
            self._count(key, key.requests_per_minute)
        return key

    def check_site(self, host: str, origin: str | None) -> None:
        """Without a key: raises Refused for what a page of another site can make a browser send, a request under a name
        that its owner points to this machine (DNS rebinding), or one across sites. `host` and `origin` are the headers.
        """
        if not self._open:
            return
        name = host_of(host)
        if not (is_loopback(name) or name in self._hosts):
            message = f"This endpoint has no API key, so it does not answer as '{printable(name)}': name it in 'hosts'."
            raise Refused(Refusal(message, None, "host_not_allowed", 403))
        page = (origin or "").partition("://")[2].lower()
        if origin is not None and page != host.lower() and host_of(page) not in self._hosts:
            message = f"This endpoint has no API key, so a page of '{printable(origin)}' may not ask it."
            raise Refused(Refusal(message, None, "origin_not_allowed", 403))

    def check_type(self, content_type: str) -> None:
        """Without a key: raises Refused for a body that a page of another site may send without asking first."""
        if self._open and content_type.partition(";")[0].strip().lower() != "application/json":
            message = "This endpoint has no API key, so a body needs the header 'Content-Type: application/json'."
            raise Refused(Refusal(message, None, "unsupported_media_type", 415))

    def allow(self, key: Key, name: str) -> bool:
        """Whether the key may ask the adapter behind a name (`support` or `support@3`)."""
        return key.allows(name)

    def check(self, key: Key, name: str) -> None:
        """Raises Refused for a name that the key does not open."""
        if not self.allow(key, name):
            message = (
                f"model: the key '{key.name}' does not open '{printable(name)}'. It opens {', '.join(key.adapters)}."
            )
            raise Refused(Refusal(message, "model", "model_not_allowed", 403))

    def _find(self, token: str) -> Key | None:
        if self._api_key is not None and hmac.compare_digest(token.encode(), self._api_key.encode()):
            return Key("api-key", "")
        return self._keys.find(token) if self._keys else None

    def _count(self, key: Key, per_minute: float) -> None:
        bucket = self._buckets.get(key.name)
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[key.name] = Bucket(per_minute)
        wait = bucket.take()
        if wait:
            seconds = math.ceil(wait)
            message = f"The key '{key.name}' is used more often than {per_minute:g} times a minute: wait {seconds} s."
            raise Refused(Refusal(message, None, "rate_limit_exceeded", 429, "rate_limit_error", seconds))
