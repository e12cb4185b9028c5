"""`report.html`: what a run came to, as one page that opens anywhere without a network. Reads the run directory only.

What comes from a run can be anyone's. The template escapes it, charts get it as inert text (`words.inert`), JSON cannot
end its script, and the page's own policy allows no network and no script but the two that are named by their hashes.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ftlib.files.atomic import write_text
from ftlib.report import facts, first_screen
from ftlib.report.answers import confusion_of_classifier, side_by_side
from ftlib.report.costs import bill, quality_against_cost
from ftlib.report.curves import learning_curves
from ftlib.report.front import front
from ftlib.report.results import Evaluation, answers_of, evaluation_of
from ftlib.report.settings import settings
from ftlib.report.shapes import Section
from ftlib.report.study import points_of
from ftlib.report.template import digest, plain_lines, script, script_json, style, template
from ftlib.report.timeline import timeline
from ftlib.run.directory import Run
from ftlib.run.layout import REPORT
from ftlib.run.leaderboard import Leaderboard, leaderboard


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
    scripts = [plain_lines(get_plotlyjs()), script("page.js")]
    charts = [chart for section in (*before, *after) for chart in section.charts]
    return template("page.html").render(
        name=run.resolved.get("experiment", {}).get("name") or run.name,
        run=run.name,
        about=first_screen.about(run, board),
        verdict=first_screen.verdict(board, evaluation),
        notes=first_screen.notes(evaluation),
        results=first_screen.results(evaluation),
        leaderboard=first_screen.leaderboard_table(board, evaluation),
        footer=". ".join(
            line for told in (board.numbers, board.marks, board.footer) if told for line in told.splitlines()
        ),
        tied=first_screen.tied(board, evaluation),
        promotion=first_screen.promotion(run, board, evaluation),
        before=before,
        answers=answers,
        confusions=confusion_of_classifier(run, board),
        after=after,
        commands=facts.reproduced_by(run),
        experiment=facts.experiment_text(run),
        charts=script_json([chart.drawn for chart in charts]),
        style=style("page.css"),
        scripts=[Markup(one) for one in scripts],
        hashes=Markup(" ".join(map(digest, scripts))),
    )


def _sections(run: Run, board: Leaderboard) -> tuple[list[Section], list[Section]]:
    """The sections before the answers, and those after them; what has nothing to say is left out."""
    sweep = run.resolved.get("experiment", {}).get("sweep") or {}
    points = points_of(board, sweep.get("space") or {})
    before = [
        learning_curves(run, board),
        *settings(board, points),
        front(board),
        quality_against_cost(board, points),
        timeline(run),
    ]
    after = [facts.data_report(run), bill(run, board), facts.environment(run, board)]
    return [section for section in before if section], [section for section in after if section]
