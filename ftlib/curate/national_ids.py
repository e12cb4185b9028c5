"""Numbers by which countries know people: as the country writes them, with their check digits (python-stdnum)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from ftlib.curate.optional import needed

# Region: how the number is written, and stdnum's module that checks it. Where nine or ten bare digits are such a number
# (NL, PT), any number of that length would be one in eleven times: they are left out.
WRITTEN: dict[str, tuple[tuple[str, str], ...]] = {
    "BE": ((r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),),
    "BR": ((r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),),
    "CH": ((r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),),
    "CN": ((r"\d{17}[\dXx]", "cn.ric"),),
    "DE": ((r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr"),),
    "ES": ((r"\d{8}-?[A-Z]", "es.dni"), (r"[XYZ]-?\d{7}-?[A-Z]", "es.nie")),
    "FI": ((r"\d{6}[-+A]\d{3}[\dA-Y]", "fi.hetu"),),
    "FR": ((r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),),
    "GB": ((r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", ""),),  # without a check digit
    "IN": ((r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}", "in_.aadhaar"), (r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]", "in_.pan")),
    "IT": ((r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),),
    "PL": ((r"\d{11}", "pl.pesel"),),
    "SE": ((r"(?:19|20)?\d{6}[-+]\d{4}", "se.personnummer"),),
    "US": ((r"\d{3}-\d{2}-\d{4}", "us.ssn"),),
    "ZA": ((r"\d{6} ?\d{4} ?\d{3}", "za.idnr"),),
}


def national_ids(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where those of the regions begin and end."""
    known = tuple(region for region in regions if region in WRITTEN)
    if not known:
        return
    for match in _any_of(known).finditer(text):
        if any(_is_id(match[0], region) for region in known):
            yield match.span()


@cache
def _any_of(regions: tuple[str, ...]) -> re.Pattern[str]:
    ways = "|".join(way for region in regions for way, _ in WRITTEN[region])
    return re.compile(rf"(?<![\w.-])(?:{ways})(?![\w-]|\.\d)")


def _is_id(text: str, region: str) -> bool:
    fitting = [module for way, module in WRITTEN[region] if re.fullmatch(way, text)]
    return any(not module or needed(f"stdnum.{module}").is_valid(text) for module in fitting)
