"""Keys, tokens and passwords in texts: by the prefix that their makers publish, or by a name and entropy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

KNOWN = (
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[\w-]{20,}",  # GitLab
    r"sk-[\w-]{20,}",  # OpenAI, Anthropic, DeepSeek
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"xox[abprse]-[\w-]{10,}",  # Slack
    r"AIza[\w-]{35}",  # Google
    r"ya29\.[\w-]{20,}",
    r"[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[\w-]{50,}",
    r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
    r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",  # a JSON Web Token
)
TOKEN = re.compile(rf"(?<![\w-])(?:{'|'.join(KNOWN)})(?![\w-])")
PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----.{0,10000}?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL
)
IN_URL = re.compile(r"(?<=://)[^\s/:@]{1,64}:[^\s/@]{3,128}(?=@)")
NAMED = re.compile(
    r"(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd|credential)[\w-]{0,20}[\"']?\s{0,3}(?:[:=]|\bis\b)\s{0,3}"
    r"[\"']?(?P<value>[^\s\"',;<>]{8,200})",
    re.IGNORECASE,
)
ENTROPY = 3.0  # bits a character, of a value that is none of a language's words


def secrets(text: str, _regions: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Where they begin and end."""
    for pattern in (PRIVATE_KEY, TOKEN, IN_URL):
        yield from (match.span() for match in pattern.finditer(text))
    for match in NAMED.finditer(text):
        if _is_random(match["value"].rstrip(".)]}")):
            yield match.start("value"), match.start("value") + len(match["value"].rstrip(".)]}"))


def _is_random(value: str) -> bool:
    """Whether a value has letters and digits, and is as hard to guess as a key."""
    kinds = any(letter.isdigit() for letter in value) and any(letter.isalpha() for letter in value)
    return kinds and entropy(value) >= min(ENTROPY, math.log2(len(value)) - 0.5) if value else False


def entropy(text: str) -> float:
    """Bits a character, by how often each stands in the text."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)
