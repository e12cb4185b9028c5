"""Whether W&B may be told, and where it is: what the experiment, W&B's variables and its settings files say."""

from __future__ import annotations

import configparser
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Literal

from ftlib.config import Wandb
from ftlib.errors import ConfigError, nearest

Mode = Literal["online", "offline", "disabled"]
PRIVATE: tuple[Mode, ...] = ("online", "offline", "disabled")  # from the least to the most
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}  # W&B's words
WANDB_URL = "https://api.wandb.ai"
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com", "forge.coreweave.com")  # one server, by its names


def wandb_mode(settings: Wandb) -> Mode:
    """`auto` is online where there is a key. What W&B's own variables and settings files say holds too: of all that is
    said, data goes the shortest way. Raises ConfigError when online is asked for and there is no key."""
    told = {"track.wandb.mode": settings.mode, **said()}
    modes = {key: MODES[mode] for key, mode in told.items() if mode != "auto"}
    asked = max(modes.values(), key=PRIVATE.index, default=None)
    if asked in ("offline", "disabled"):
        return asked
    if has_key():
        return "online"
    if asked == "online":
        key = next(key for key, mode in modes.items() if mode == "online")
        raise ConfigError(
            f"{key} is 'online', but there is no key for {base_url()}: set WANDB_API_KEY, or use mode: offline."
        )
    return "offline"


def said() -> dict[str, str]:
    """What is said of the mode outside of the experiment. Raises ConfigError for a word that W&B does not know."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return {"WANDB_DISABLED": "disabled"}
    file = _settings().get("mode") or ("disabled" if _settings().get("disabled") == "true" else "")
    told = {"WANDB_MODE": os.environ.get("WANDB_MODE", "").lower(), "mode of W&B's settings file": file}
    found = {key: mode for key, mode in told.items() if mode}
    for key, mode in found.items():
        if mode not in MODES:
            raise ConfigError(f"{key} is '{mode}', but must be one of: {', '.join(MODES)}.{nearest(mode, MODES)}")
    return found


def _settings() -> dict[str, str]:
    """W&B's settings files: the user's, and above it that of the working directory."""
    parser = configparser.ConfigParser(interpolation=None)
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    here = Path(os.environ.get("WANDB_DIR") or ".").expanduser() / "wandb"
    try:
        parser.read([user / "settings", here / "settings"], encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):  # W&B says so itself
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def base_url() -> str:
    """The W&B server that is meant: not everybody's is W&B's own."""
    return (os.environ.get("WANDB_BASE_URL") or _settings().get("base_url") or WANDB_URL).rstrip("/")


def reachable(seconds: float = 10) -> bool:
    """Whether anything answers there, through the proxies of the environment; an error page is an answer."""
    try:
        urllib.request.urlopen(base_url(), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def has_key() -> bool:
    """Whether there is a key for that server: one for another would be sent nowhere, or to the wrong place."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(base_url()).netloc
    try:
        known = netrc.netrc(os.environ.get("NETRC") or None).hosts  # not its `default`, which is of any server
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.get(server, ("", "", ""))[2] for server in (WANDB_HOSTS if host in WANDB_HOSTS else (host,)))
