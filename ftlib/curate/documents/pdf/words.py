"""A page of a PDF as words with places and fonts, from pdfium's glyphs.

Coordinates are points, y upwards. A page that is turned is turned back; text at an angle to the rest (a stamp on the
margin, a watermark) is left out. A raised digit is written as one (¹), since it is a note's or an exponent's.
"""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from ftlib.curate.documents.pdf.rules import Rule

SPACE = 0.15  # of a font's size: a wider gap parts two words (TeX's narrowest is 0.22, its widest kern below 0.1)
MAX_GLYPHS = 200_000  # of a page: a page of a dictionary has 10,000
FIXED_PITCH = 1  # of a font's flags (ISO 32000-1, table 123)
MONO = re.compile(r"mono|courier|consol|typewriter|menlo|fixed|cmtt|cmsltt|cmitt|tctt|ectt|sftt|lmtt|code", re.I)
BOLD = re.compile(r"bold|black|heavy|demi|cmb|cmssb|sfbx|ecbx|TB\b", re.I)
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
LIGATURES = {
    "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st",
    "\x02": "-", "\ufffe": "-",  # what pdfium makes of a hyphen at the end of a line
    "\xa0": " ", "\u2010": "-", "\u2011": "-", "\u200b": "",
}  # fmt: skip


class Face(NamedTuple):
    """What the glyphs of one text object share. `turn` is how many quarters its line is turned."""

    size: float
    mono: bool
    bold: bool
    turn: int


@dataclass(slots=True)
class Word:
    """Its left and right edges, and its baseline. `face` is that of its first character."""

    text: str
    x0: float
    x1: float
    y: float
    face: Face

    @property
    def size(self) -> float:
        return self.face.size


class TooDense(Exception):
    """A page has more than MAX_GLYPHS."""


def page_words(page: Any) -> list[Word]:
    """The upright words of a pypdfium2 page, in the order in which the file has them. Raises TooDense."""
    text = page.get_textpage()
    try:
        if text.count_chars() > MAX_GLYPHS:
            raise TooDense
        glyphs = _Glyphs(text.raw).upright()
    finally:
        text.close()
    found: list[Word] = []
    parted, before = True, 0.0  # `before`: where the last glyph began
    for char, x0, x1, y, face in glyphs:
        if char.isspace():
            parted = True
            continue
        if not parted and x0 > before - 0.5 and _continues(found[-1], x0, y, face):
            _add(found[-1], char, x1, y, face)
        else:
            found.append(Word(char, x0, x1, y, face))
        parted, before = False, x0
    for word, after in pairwise(found):
        _lower(word, after)
    return found


def _lower(word: Word, after: Word) -> None:
    """A raised word right before one of full size stands on its line: the number of a note."""
    raised = 0.15 * after.size < word.y - after.y < 0.6 * after.size and word.size < 0.9 * after.size
    if raised and -0.1 * after.size < after.x0 - word.x1 < 0.5 * after.size:
        word.text, word.y, word.face = word.text.translate(RAISED), after.y, after.face


def _continues(word: Word, x0: float, y: float, face: Face) -> bool:
    size, gap = max(word.size, face.size), x0 - word.x1
    small = face.size < 0.9 * word.size  # a raised or a lowered glyph
    off_line = 0.6 if small else 0.3 if gap < 0 else 0.15  # 0.3: the E of TeX
    return gap < SPACE * size and abs(y - word.y) < off_line * size


def _add(word: Word, char: str, x1: float, y: float, face: Face) -> None:
    raised = y - word.y > 0.15 * word.size and face.size < 0.9 * word.size
    word.text += char.translate(RAISED) if raised else char
    word.x1 = max(word.x1, x1)


def underscored(words: list[Word], dashes: list[Rule]) -> list[Word]:
    """The words with the underscores that TeX draws as rules, since its text fonts have none: `hist` — `verify`."""
    for dash in dashes:
        near = [word for word in words if -0.25 * word.size < dash.at - word.y < 0.05 * word.size]
        before = next((word for word in near if -0.5 < dash.low - word.x1 < SPACE * word.size), None)
        after = next((word for word in near if -0.5 < word.x0 - dash.high < SPACE * word.size), None)
        if before is not None:
            before.text += "_" + (after.text if after else "")
            before.x1 = after.x1 if after else dash.high
            words = [word for word in words if word is not after]
    return words


def bulleted(words: list[Word], dots: list[tuple[float, float]]) -> list[Word]:
    """The words, and a bullet for each dot that stands right before one."""
    for right, middle in dots:
        near = [word for word in words if 0 <= middle - word.y <= word.size and 0 <= word.x0 - right <= 2 * word.size]
        if near:
            word = min(near, key=lambda word: word.x0)
            words = [*words, Word("•", right - 1, right, word.y, word.face)]
    return words


class _Glyphs:
    """The glyphs of one text page: (character, left, right, baseline, face)."""

    def __init__(self, text: Any) -> None:
        import pypdfium2.raw as pdfium

        self.pdfium, self.text = pdfium, text
        self.faces: dict[int, Face] = {}
        self.name, self.flags = ctypes.create_string_buffer(256), ctypes.c_int()

    def upright(self) -> list[tuple[str, float, float, float, Face]]:
        glyphs = list(self._all())
        turns = Counter(glyph[-1].turn for glyph in glyphs if not glyph[0].isspace())
        if not turns:
            return []
        turn = turns.most_common(1)[0][0]
        return [_turned(turn, *glyph) for glyph in glyphs if glyph[-1].turn == turn]

    def _all(self) -> Any:
        pdfium, text = self.pdfium, self.text
        x, y, box = ctypes.c_double(), ctypes.c_double(), pdfium.FS_RECTF()
        high = 0
        for index in range(pdfium.FPDFText_CountChars(text)):
            code = pdfium.FPDFText_GetUnicode(text, index)
            if pdfium.FPDFText_IsGenerated(text, index) and code != 32:
                continue
            if 0xD800 <= code < 0xDC00:  # pdfium gives UTF-16: the second half follows
                high = code
                continue
            char = _character(high, code)
            high = 0
            if not char or (char < " " and not char.isspace()):
                continue
            pdfium.FPDFText_GetCharOrigin(text, index, x, y)
            pdfium.FPDFText_GetLooseCharBox(text, index, box)
            yield char, (x.value, y.value), (box.left, box.bottom, box.right, box.top), self._face(index)

    def _face(self, index: int) -> Face:
        """Asked once for each text object of the page: all its glyphs have one face."""
        pdfium, text = self.pdfium, self.text
        thing = pdfium.FPDFText_GetTextObject(text, index)
        key = ctypes.cast(thing, ctypes.c_void_p).value or -1
        if key not in self.faces:
            matrix = pdfium.FS_MATRIX()
            pdfium.FPDFText_GetMatrix(text, index, matrix)
            pdfium.FPDFText_GetFontInfo(text, index, self.name, len(self.name), self.flags)
            size = pdfium.FPDFText_GetFontSize(text, index) * math.hypot(matrix.c, matrix.d)
            name = self.name.value.decode("utf-8", "replace")
            mono = bool(self.flags.value & FIXED_PITCH or MONO.search(name))
            bold = pdfium.FPDFText_GetFontWeight(text, index) >= 600 or bool(BOLD.search(name))
            self.faces[key] = Face(round(size, 1), mono, bold, _quarters(matrix.a, matrix.b))
        return self.faces[key]


def _character(high: int, code: int) -> str:
    """The character of a code, after the first half of its pair where it has one; an italic letter of a formula as the
    letter. Empty for what is none."""
    if 0xDC00 <= code < 0xE000:
        code = 0x10000 + ((high - 0xD800) << 10) + code - 0xDC00 if high else 0
    if 0x1D400 <= code < 0x1D800:
        return unicodedata.normalize("NFKC", chr(code))
    return LIGATURES.get(chr(code), chr(code)) if 0 < code <= 0x10FFFF else ""


def _quarters(a: float, b: float) -> int:
    """0 to 3 quarters of a turn; -1 for any other angle."""
    turns = math.atan2(b, a) / (math.pi / 2)
    return round(turns) % 4 if abs(turns - round(turns)) < 0.03 else -1


def _turned(
    turn: int, char: str, origin: tuple[float, float], box: tuple[float, ...], face: Face
) -> tuple[str, float, float, float, Face]:
    left, bottom, right, top = box
    if turn == 1:
        return char, bottom, top, -origin[0], face
    if turn == 2:
        return char, -right, -left, -origin[1], face
    if turn == 3:
        return char, -top, -bottom, origin[0], face
    return char, left, right, origin[1], face
