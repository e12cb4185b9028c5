"""Personal data and secrets in texts: where they stand, and texts with `[EMAIL]` and the like in their place.

What has check digits is checked (cards by Luhn's, IBANs by ISO 7064's), a phone number against the numbering plans of
the regions (libphonenumber's), a secret by the public prefix of its maker or by its entropy. Names of people and
addresses are not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from ftlib.curate.national_ids import national_ids
from ftlib.curate.optional import needed
from ftlib.curate.phones import REGIONS, is_calculated, phones
from ftlib.curate.secrets import secrets
from ftlib.errors import InputError, nearest

EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
CARD = re.compile(  # in groups of four, or as American Express and Diners Club write theirs, or without a gap
    r"(?<![\w.,-])(?:\d{4}(?:[ -]\d{4}){3}(?:[ -]?\d{3})?|\d{4}[ -]\d{6}[ -]\d{4,5}|\d{4}(?:[ -]\d{4}){2}[ -]\d{2}"
    r"|\d{14,16}|\d{19})(?![\w-]|[.,]\d)"
)
CARD_ISSUED = re.compile(r"(4|5[1-5]|2[2-7]|3[47]|3[0689]|35|6011|64[4-9]|65|62|50|5[6-9]|6[0-9])\d*")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{1,4}){3,8}(?!\w)", re.IGNORECASE)
IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[\da-f]{1,4}|:)(?::[\da-f]{0,4}){2,7})(?![\w:]|\.\d)", re.IGNORECASE
)
SEPARATORS = re.compile(r"[ -]")

Places = Iterator[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Span:
    """`text[start:end]` is of this kind."""

    start: int
    end: int
    kind: str


def find(text: str, kinds: Iterable[str] = (), regions: Sequence[str] = REGIONS) -> list[Span]:
    """What stands in a text, in order; of two that overlap the one whose kind comes first in `KINDS`.

    No `kinds` are all of them. `regions` (ISO 3166: 'DE') are those whose phone numbers may stand there as one writes
    them within the country, and whose national ids are looked for; international numbers are found of every country.
    """
    wanted = check_kinds(kinds)
    found: list[Span] = []
    taken = bytearray(len(text))
    for kind in wanted:
        for start, end in KINDS[kind](text, regions):
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                found.append(Span(start, end, kind))
    return sorted(found, key=lambda span: span.start)


def redact(text: str, kinds: Iterable[str] = (), regions: Sequence[str] = REGIONS) -> str:
    """The text with `[EMAIL]`, `[NATIONAL_ID]` ... in the place of what `find` finds."""
    for span in reversed(find(text, kinds, regions)):
        text = f"{text[: span.start]}[{span.kind.upper()}]{text[span.end :]}"
    return text


def check_kinds(kinds: Iterable[str]) -> list[str]:
    """The kinds in the order of `KINDS`, all where none is named. Raises InputError for a name that is none."""
    named = list(kinds)
    for kind in named:
        if kind not in KINDS:
            raise InputError(
                f"'{kind}' is no kind of personal data: there are {', '.join(KINDS)}.{nearest(kind, KINDS)}"
            )
    return [kind for kind in KINDS if kind in named or not named]


def _emails(text: str, _regions: Sequence[str]) -> Places:
    return (match.span() for match in EMAIL.finditer(text)) if "@" in text else iter(())


def _cards(text: str, _regions: Sequence[str]) -> Places:
    for match in CARD.finditer(text):
        digits = SEPARATORS.sub("", match[0])
        if CARD_ISSUED.fullmatch(digits) and _luhn(digits) and not is_calculated(text, *match.span()):
            yield match.span()


def _luhn(digits: str) -> bool:
    return len(set(digits)) > 1 and bool(needed("stdnum.luhn").is_valid(digits))


def _ibans(text: str, _regions: Sequence[str]) -> Places:
    for match in IBAN.finditer(text):
        end = match.end()
        while end - match.start() > 14 and not _is_iban(text[match.start() : end]):
            end = match.start() + max(text[match.start() : end].rfind(" "), 0)  # a word that follows it may look alike
        if end - match.start() > 14:
            yield match.start(), end


def _is_iban(text: str) -> bool:
    return bool(needed("stdnum.iban").is_valid(text, check_country=False))


def _ips(text: str, _regions: Sequence[str]) -> Places:
    for match in IP.finditer(text):
        if (
            len(match[0]) < 46
            and _is_ip(match[0])
            and not VERSION.search(text, max(0, match.start() - 12), match.start())
        ):
            yield match.span()


VERSION = re.compile(r"(?:version|release|section|chapter|v)\W{0,2}\Z", re.IGNORECASE)


def _is_ip(text: str) -> bool:
    try:
        return any(letter.isdigit() for letter in text) and not ip_address(text).is_unspecified
    except ValueError:
        return False


Finder = Callable[[str, Sequence[str]], Places]
# The surest first: the digits of an IBAN may look like a card's or a phone number's.
KINDS: dict[str, Finder] = {
    "secret": secrets,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "national_id": national_ids,
    "ip": _ips,
    "phone": phones,
}
