"""The Hub, where it cannot be reached: its clients then use what they have kept, without half a minute of trying."""

from __future__ import annotations

import os
import socket
import urllib.parse
from functools import cache

SECONDS = 5.0  # to connect
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@cache
def look_once() -> None:
    """Connects to the Hub once a process. Where that fails, huggingface_hub and datasets are told that they are
    offline.

    Behind a proxy they find out by themselves.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or any(os.environ.get(name) for name in PROXIES):
        return
    place = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((place.hostname or "", place.port or 443), timeout=SECONDS).close()
    except OSError:
        import datasets

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that this one starts
