"""`report.html`: what a run came to, as one page that opens anywhere without a network. Reads the run directory only.

What comes from a run can be anyone's. The template escapes it, charts get it as inert text (`words.inert`), JSON cannot
end its script, and the page's own policy allows no network and no script but the two that are named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ftlib.files.atomic import write_text
from ftlib.report import facts, first_screen
from ftlib.report.answers import confusion_of_classifier, side_by_side
from ftlib.report.costs import bill, quality_against_cost
from ftlib.report.curves import learning_curves
from ftlib.report.results import Evaluation, answers_of, evaluation_of
from ftlib.report.settings import settings
from ftlib.report.shapes import Section
from ftlib.report.study import points_of
from ftlib.report.timeline import timeline
from ftlib.run.directory import Run
from ftlib.run.layout import REPORT
from ftlib.run.leaderboard import Leaderboard, leaderboard

HERE = Path(__file__).parent
ENDS_OF_SCRIPTS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def write_report(run: Run, out: Path | None = None) -> Path:
    """Writes the page into the run directory, or to `out`, whole or not at all; returns where it is.

    Raises FtlibError for a damaged file of the run, and where nothing can be written.
    """
    file = out or run.path / REPORT
    write_text(file, page(run))
    return file


def page(run: Run) -> str:
    """The page's HTML."""
    board, evaluation = leaderboard(run), evaluation_of(run)
    before, after = _sections(run, board)
    answers = side_by_side(evaluation or Evaluation(), answers_of(run))
    scripts = [_plain_lines(get_plotlyjs()), _plain_lines((HERE / "page.js").read_text(encoding="utf-8"))]
    charts = [chart for section in (*before, *after) for chart in section.charts]
    return _template().render(
        name=run.resolved.get("experiment", {}).get("name") or run.name,
        run=run.name,
        about=first_screen.about(run, board),
        verdict=first_screen.verdict(board, evaluation),
        notes=first_screen.notes(evaluation),
        results=first_screen.results(evaluation),
        leaderboard=first_screen.leaderboard_table(board, evaluation),
        footer=board.footer,
        tied=first_screen.tied(board, evaluation),
        promotion=first_screen.promotion(run, board, evaluation),
        before=before,
        answers=answers,
        confusions=confusion_of_classifier(run, board),
        after=after,
        commands=facts.reproduced_by(run),
        experiment=facts.experiment_text(run),
        charts=script_json([chart.drawn for chart in charts]),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        hashes=Markup(" ".join(map(_hash, scripts))),
    )


def _sections(run: Run, board: Leaderboard) -> tuple[list[Section], list[Section]]:
    """The sections before the answers, and those after them; what has nothing to say is left out."""
    sweep = run.resolved.get("experiment", {}).get("sweep") or {}
    points = points_of(board, sweep.get("space") or {})
    before = [learning_curves(run, board), *settings(board, points), quality_against_cost(board, points), timeline(run)]
    after = [facts.data_report(run), bill(run, board), facts.environment(run, board)]
    return [section for section in before if section], [section for section in after if section]


def script_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element, and every character is ASCII."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup("".join(ENDS_OF_SCRIPTS.get(character, character) for character in told))


def _plain_lines(script: str) -> str:
    """A browser reads other ends of lines as this one before it looks at the hash."""
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
