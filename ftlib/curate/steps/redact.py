"""`redact`: personal data and secrets replaced by their kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ftlib.config.recipe.looking import RedactStep
from ftlib.curate.personal_data import find, redact
from ftlib.curate.phones import check_regions
from ftlib.curate.rows import Row, texts_of, with_texts
from ftlib.curate.step import Context, Result, RowStep


def work(rows: Sequence[Row], settings: RedactStep, context: Context) -> Result:
    """Replaces what is found, or drops the row. The notes say what was found, and never the thing itself."""
    regions = check_regions(settings.regions)
    result = Result()
    for row in rows:
        texts = texts_of(row, settings.fields)
        found = Counter(span.kind for text in texts for span in find(text, settings.kinds, regions))
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        if not found:
            result.keep(row)
        elif settings.drop:
            result.drop(_redacted(row, settings, regions), "personal", told)
        else:
            result.change(_redacted(row, settings, regions), min(found), told)
    return result


def _redacted(row: Row, settings: RedactStep, regions: Sequence[str]) -> Row:
    return with_texts(row, lambda text: redact(text, settings.kinds, regions), settings.fields)


STEP = RowStep(work)
