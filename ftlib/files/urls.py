"""Which texts name a place behind a URL, and which of those can be used."""

from __future__ import annotations

SCHEMES = ("s3://", "gs://")


def is_url(text: str) -> bool:
    """Whether a text names a place behind a URL, of whatever scheme."""
    return "://" in text


def why_no_place(url: str) -> str | None:
    """Why a URL cannot be used, to be read after its key; None where it can, and shows no key."""
    _, _, path = url.partition("://")
    if not url.startswith(SCHEMES) or not path.strip("/"):
        return f"'{url}' is no place that can be reached: use a path, s3://BUCKET/... or gs://BUCKET/..."
    if "@" in path.partition("/")[0]:
        return "a URL must not hold a key, since it is written down in many places: use the environment"
    return None
