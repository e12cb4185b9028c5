"""A process that does one piece of work: every failure is one sentence and an exit status.

0 worked, 1 the work failed, 2 the input was wrong, 130 interrupted (and can be resumed).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ftlib.driver.terminal import echo
from ftlib.errors import FtlibError


def guarded(work: Callable[[], Any], debug: bool) -> None:
    """Does the work of a process and exits with its status; every failure is one sentence."""
    try:
        status = work()
        sys.exit(status if isinstance(status, int) else 0)
    except FtlibError as error:
        _fail(str(error), error.exit_status, debug)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted.", 130, debug)
    except Exception as error:
        _fail(
            f"{type(error).__name__}: {error}\nThis is a defect of ftlib, or of a library: --debug shows where.",
            1,
            debug,
        )


def _fail(message: str, status: int, debug: bool) -> None:
    if debug and sys.exc_info()[0]:
        import traceback

        traceback.print_exc()
    echo(f"error: {message}", fg="red", err=True)
    sys.exit(status)
