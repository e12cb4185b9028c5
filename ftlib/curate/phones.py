"""Phone numbers in texts: written for the world (+49 30 901820) or as within a country ((212) 736-5000).

What looks like one is checked against the numbering plans of libphonenumber. A sum, an amount or a plain count of many
digits may fit such a plan as well. So a number without + must be written as people write phone numbers, must not stand
in a calculation, and must fit the plan of one of the regions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ftlib.curate.optional import needed
from ftlib.errors import InputError

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "IN", "JP")
SIGN = r"[ .\-/\u00a0\u2011]"
GAP = rf"(?: - |{SIGN}?\){SIGN}?|{SIGN}?\({SIGN}?|{SIGN})"
CANDIDATE = re.compile(
    rf"(?<![\w$€£¥%#@=*/^<>])(?<!\d[.,:])(?:\+ ?)?\(?\+?\d{{1,15}}(?:{GAP}\d{{1,14}}){{0,7}}(?![\w%$€£¥]|[.,:]\d)"
)
ENOUGH = re.compile(r"(?:\d\D{0,3}){7}")  # digits: a cheap first look
CALCULATED = re.compile(r"\s{0,2}(?:[=*×÷^<>$€£]|\+ ?\d|- ?\d|/ ?\d|\\times)")
CALCULATES = re.compile(r"(?:[=*×÷^<>$€£]|\d ?[-+/]) ?\Z")
AMOUNT = re.compile(r"\d{1,3}(?:[ .]\d{3})*[ .]000|[1-9]\d?(?:[ .]\d{3})+|\d+\.\d+")
YEAR = r"(?:1[89]|20)\d\d"
YEARS = re.compile(
    rf"{YEAR}[ -/]{YEAR}|{YEAR}([-/. ])[01]?\d\1[0-3]?\d|[0-3]?\d([-/. ])[01]?\d\2{YEAR}"  # dates, too
)
ADDED = re.compile(r"[\d)] ?\Z")
ODD_BRACKET = re.compile(r"\([^)]*[^\d)]")
NAMES = (
    "tel|phone|call|mobile|cell|fax|whatsapp|sms|text me|ring|contact|telefon\\w*|handy|tél|móvil|celular|cellulare|bel"
    "|电话|電話|फोन"
)
NAMED = re.compile(rf"\b(?:{NAMES})\W{{0,3}}(?:\w+\W{{1,2}}){{0,3}}\Z", re.IGNORECASE)


def phones(text: str, regions: Sequence[str] = REGIONS) -> Iterator[tuple[int, int]]:
    """Where they begin and end."""
    if not ENOUGH.search(text):
        return
    for match in CANDIDATE.finditer(text):
        start, end = _whole(text, *match.span())
        written = text[start:end]
        if 7 <= sum(letter.isdigit() for letter in written) <= 17 and _is_phone(text, written, start, end, regions):
            yield start, end


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """Without a bracket that something else opens or closes, and without signs at the end."""
    written = text[start:end]
    start += written[0] == "(" and ")" not in written
    return start, start + len(text[start:end].rstrip(" .-/\u00a0\u2011("))


def _is_phone(text: str, written: str, start: int, end: int, regions: Sequence[str]) -> bool:
    if written[0] == "+" or written[:2] == "(+":
        return not ADDED.search(text, max(0, start - 2), start) and _fits(written, None)
    if is_calculated(text, start, end):
        return False
    if written[:2] == "00" and _fits(f"+{written[2:].lstrip()}", None):
        return True
    named = NAMED.search(text, max(0, start - 40), start) is not None
    return (named or _is_written_so(written)) and any(_fits(written, region) for region in regions)


def check_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """The regions in capitals; ten of them where none is named. Raises InputError for a code that is no region's."""
    known = needed("phonenumbers").SUPPORTED_REGIONS
    for region in regions:
        if region.upper() not in known:
            raise InputError(f"'{region}' is no region: give two letters of ISO 3166, as DE, US, BR.")
    return tuple(region.upper() for region in regions) or REGIONS


def is_calculated(text: str, start: int, end: int) -> bool:
    """Whether a number stands in a calculation or is an amount of money."""
    return bool(CALCULATED.match(text, end) or CALCULATES.search(text, max(0, start - 4), start))


def _is_written_so(written: str) -> bool:
    """Whether nothing else is usually written like it: in groups, or with the zero of a trunk."""
    groups = re.findall(r"\d+", written)
    if " - " in written or ODD_BRACKET.search(written) or AMOUNT.fullmatch(written) or YEARS.fullmatch(written):
        return False
    if len("".join(groups)) < 1.5 * len(groups):  # single digits are a list
        return False
    if len(groups) < 3:
        return "." not in written and (written[0] in "0(" or _are_halves(groups))
    return True


def _are_halves(groups: list[str]) -> bool:
    """98765 43210, and not the range 4000-4999."""
    return len(groups) == 2 and min(map(len, groups)) > 3 and len("".join(groups)) > 8


def _fits(written: str, region: str | None) -> bool:
    library = needed("phonenumbers")
    try:
        return bool(library.is_valid_number(library.parse(written, region)))
    except library.NumberParseException:
        return False
