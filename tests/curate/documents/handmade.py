"""PDFs written by hand: small ones, and those that no program would write."""

from __future__ import annotations

import zlib
from pathlib import Path


def pdf(path: Path, objects: list[bytes]) -> Path:
    """A file of these objects (numbered from 1); the first is its catalog."""
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    path.write_bytes(out)
    return path


def stream(body: bytes, extra: bytes = b"") -> bytes:
    packed = zlib.compress(body)
    return b"<< /Length %d /Filter /FlateDecode %s >>\nstream\n%s\nendstream" % (len(packed), extra, packed)


PICTURE = stream(
    b"\0" * 12, b"/Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceRGB /BitsPerComponent 8"
)
FONTS = b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"


def pages(path: Path, contents: list[bytes], extra: list[bytes] | None = None) -> Path:
    """A page for each content stream. `extra` objects come first, from number 3 on; /X3, /X4 ... draw them."""
    extra = extra or []
    named = b" ".join(b"/X%d %d 0 R" % (number, number) for number in range(3, 3 + len(extra)))
    first = 3 + len(extra)
    kids = b" ".join(b"%d 0 R" % (first + 2 * place) for place in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 612 792] /Resources << %s /XObject << %s >> >> >>"
        % (kids, len(contents), FONTS, named),
        *extra,
    ]
    for place, content in enumerate(contents):
        objects += [b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R >>" % (first + 2 * place + 1), stream(content)]
    return pdf(path, objects)


def line(text: str, x: float = 72, y: float = 700, size: float = 10) -> bytes:
    return b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, text.encode("latin-1"))
