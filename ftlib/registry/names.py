"""How names and numbers of versions are spelled."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
ALIAS_BYTES = 2**20  # of the file that says which version a name means
