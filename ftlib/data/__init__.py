"""From files to tokens: rows in any common format, read once, cached by content, taken by every trial as they are."""

from ftlib.data.cache import Prepared, load_prepared
from ftlib.data.pipeline import prepare, prepare_again
from ftlib.data.report import DataReport, Lengths

__all__ = ["DataReport", "Lengths", "Prepared", "load_prepared", "prepare", "prepare_again"]
