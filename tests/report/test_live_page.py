"""`ftlib ui` over run directories: in a real headless browser while they change, and asked by strangers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ftlib.errors import InputError
from ftlib.files.atomic import write_json, write_text
from ftlib.files.json_files import append_row
from ftlib.files.locks import lock
from ftlib.registry import data_versions
from ftlib.report import live_page, live_runs
from ftlib.report.live_page import served
from ftlib.report.live_runs import Runs, summary
from ftlib.report.pipeline_page import ShownPipeline, ShownStep, write_pipeline_page
from ftlib.run import commands, layout
from ftlib.run.directory import Run
from ftlib.run.pipelines import SHOWN
from serve.front.connection import Connection
from tests.conftest import ftlib
from tests.report.browser import chromium
from tests.report.runs import ZERO, add_trial, evaluate, event, make_run

CODE = "document.title='owned'"
EVIL = f'</script><script>{CODE}</script><img src=x onerror="{CODE}">'
LINK = '<a href="https://evil">r</a>'  # Plotly makes a link of it, unless it is escaped
REPORT = "<title>closed</title><script>fetch('/api/runs').then(() => document.title = 'open')</script>"
NAMES = {"tickets", "support", "damaged", EVIL.replace("/", "_")}


@dataclass
class World:
    """A folder that is served, and its URL with the token."""

    folder: Path
    url: str

    @property
    def root(self) -> str:
        return self.url.partition("?")[0]

    def run(self, name: str) -> Run:
        return Run(self.folder / name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """`tickets` is over, `support` runs, one run is damaged, and one is not to be trusted."""
    folder = tmp_path_factory.mktemp("ui") / "runs"
    folder.mkdir()
    tickets = named(make_run(folder, 3), "tickets")
    evaluate(tickets, "000", "001", rows=9)
    (tickets.path / layout.REPORT).write_text(REPORT)
    support = running(folder)
    damaged = named(make_run(folder, 2, name="damaged"), "damaged")
    (damaged.trial("001").path / layout.STATUS).write_text("{")
    evil(folder)
    pipelines(folder.parent / "pipelines", support)
    at_work = lock(folder.parent / "pipelines" / "manual" / layout.LOCK)
    with lock(support.path / layout.LOCK), at_work, served(folder, http=Connection) as url:
        yield World(folder, url)


def named(run: Run, name: str) -> Run:
    return Run(run.path.rename(run.path.with_name(name)))


def running(folder: Path) -> Run:
    """Of 16 trials, one trains."""
    run = named(make_run(folder, 0, name="support"), "support")
    resolved = run.resolved
    resolved["experiment"]["sweep"]["num_samples"] = 16
    write_json(run.path / layout.RESOLVED, resolved)
    add_trial(run, "000", {"adapter.r": 4}, [2.0], "running")
    return run


def evil(folder: Path) -> Run:
    run = named(make_run(folder, 3, name=f"name {EVIL}"), EVIL.replace("/", "_"))
    for trial in run.trials():
        write_json(trial.path / layout.PARAMS, {LINK: 1, EVIL: f"{EVIL}{trial.id}"})
        write_json(trial.path / layout.STATUS, {"state": trial.state, "reason": EVIL})
    append_row(run.path / layout.EVENTS, event(999, EVIL, why=EVIL))
    return run


def pipelines(folder: Path, run: Run) -> None:
    """`manual` trains `support`; `gone` was killed; one is damaged, and one is not to be trusted."""
    steps = [
        ShownStep("data", "build data.yaml", [], "unchanged", made="data:manual@1", began=ZERO, seconds=9.0),
        ShownStep("sft", "sweep sft.yaml", ["data"], "running", began=ZERO, run=str(run.path)),
        ShownStep("release", "promote sft", ["sft"], "not looked at"),
    ]
    write_pipeline_page(ShownPipeline("manual", "manual", steps, ["done again when age > 7"]), folder / "manual")
    write_pipeline_page(ShownPipeline("gone", "gone", steps[1:2]), folder / "gone")
    links = [(EVIL, f"javascript:{CODE}"), ("page", "http://127.0.0.1:9/v1")]
    steps = [ShownStep(EVIL, EVIL, [], "failed", EVIL, made=f"data:../{EVIL}", links=links, run="/etc/passwd")]
    write_pipeline_page(ShownPipeline(EVIL, EVIL, steps), folder / EVIL.replace("/", "_"))
    write_text(folder / "damaged" / SHOWN, '{"name": "damaged", "path": "", "steps": [{"name": 3}]}')


def row(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "tokens": 100 * step, "seconds": 1.0 * step, "eval_loss": loss}


@pytest.fixture(scope="module")
def page(browser: Browser, world: World) -> Iterator[Page]:
    """One page for the tests that look: its charts are loaded once. Its console must stay silent to the end, and it
    must ask nobody but its server."""
    said: list[str] = []
    asked: list[str] = []
    with browser.new_context() as made:
        page = made.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(world.url)
        yield page
    assert said == []
    assert [url for url in asked if not url.startswith((world.root, "data:"))] == []


def accessible(page: Page) -> None:
    found = Axe().run(page, {"exclude": [[".main-svg"]]})
    assert found.violations_count == 0, found.generate_report()


def test_runs_are_listed_with_their_states(page: Page, world: World) -> None:
    expect(page.locator("#all tbody tr")).to_have_count(len(NAMES))
    assert page.url == world.root  # the token is in no history
    expect(page.locator("#now article")).to_contain_text("0 of 16 trials done · 1 running")
    expect(page.locator("#row-tickets")).to_contain_text("finished")
    expect(page.locator("#row-damaged")).to_contain_text("status.json is damaged (it is no JSON, or was cut short)")
    accessible(page)
    page.get_by_label("Find").fill("tick")
    expect(page.locator("#all tbody tr")).to_have_count(1)
    page.get_by_label("Find").fill("")


def test_pipelines_are_listed_with_their_steps(page: Page, world: World) -> None:
    manual = page.locator("#pipeline-manual")
    expect(manual).to_contain_text("sft is under way · done again when age > 7")
    expect(manual.locator("tbody tr")).to_have_text([re.compile("^data.*unchanged"), re.compile("^sft.*running"),
                                                     re.compile("^release.*not looked at")])  # fmt: skip
    expect(manual.get_by_role("link", name="data:manual@1")).to_have_attribute("href", "pipelines/manual/data/card")
    expect(page.locator("#pipeline-gone")).to_contain_text("sft was broken off")
    expect(page.locator("#pipeline-damaged")).to_contain_text("shown.json is damaged (it shows no pipeline)")
    places = [
        link.get_attribute("href") for link in page.locator("#pipelines article", has_text="<img").locator("a").all()
    ]
    assert [place for place in places if not place.startswith("pipelines/")] == ["http://127.0.0.1:9/v1"]
    manual.get_by_role("link", name="support").click()
    expect(page.locator("#leaderboard")).to_be_visible()


def test_curves_appear_while_a_trial_trains(page: Page, world: World) -> None:
    run = world.run("support")
    page.goto(f"{world.root}#/run/support")
    expect(page.locator("#trial-000")).to_contain_text("2.0000")
    expect(page.locator("#curves")).to_have_count(0)
    page.get_by_role("button", name="Stop trial 000").focus()
    for step, loss in ((20, 1.5), (30, 1.25)):
        append_row(run.trial("000").metrics_path, row(step, loss))
    expect(page.locator("#chart-objective .main-svg").first).to_be_attached()
    expect(page.locator("#trial-000")).to_contain_text("1.2500")
    expect(page.get_by_role("button", name="Stop trial 000")).to_be_focused()


def test_a_click_sends_a_command_and_shows_its_sentence(page: Page, world: World) -> None:
    run = world.run("support")
    page.goto(f"{world.root}#/run/support")
    page.get_by_role("button", name="Stop trial 000").press("Enter")
    dialog = page.get_by_role("dialog", name="Stop trial 000?")
    assert commands.waiting(run) == []  # nobody has said yes
    dialog.get_by_role("button", name="Stop trial 000").click()
    expect(dialog.get_by_role("status")).to_contain_text("Waiting for the sweep")
    ((name, command),) = wait_for(lambda: commands.waiting(run))
    assert command == commands.Command("stop", "000")
    commands.done(run, name, command, True, "trial 000 is being stopped")
    expect(dialog.get_by_role("status")).to_have_text("Trial 000 is being stopped.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clone trial 000").click()
    page.get_by_label("Changes").fill("nonsense")
    page.get_by_role("button", name="Clone trial 000").last.click()
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("'nonsense' is no override")
    assert commands.waiting(run) == []
    accessible(page)
    page.keyboard.press("Escape")


def wait_for(look: Any) -> Any:
    while not (found := look()):
        time.sleep(0.02)
    return found


def test_two_runs_stand_beside_each_other(page: Page, world: World) -> None:
    page.goto(f"{world.root}#/")
    for name in ("tickets", "support"):
        page.get_by_label(f"Choose {name}").check()
    page.get_by_role("link", name="Show both beside each other").press("Enter")
    expect(page.locator("#chart-beside .main-svg").first).to_be_attached()
    expect(page.locator("#settings tr", has_text="sweep.num_samples")).to_contain_text("16")
    expect(page.locator("#results tr", has_text="State")).to_contain_text("running")


@pytest.mark.parametrize("view", ["", "run/tickets", "beside/support/tickets"])
def test_it_fits_a_phone_in_the_dark(view: str, page: Page, world: World) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{world.root}#/{view}")
    expect(page.locator("tbody tr").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    accessible(page)


def test_what_a_run_says_stays_text(page: Page, world: World) -> None:
    page.goto(f"{world.root}#/")
    page.locator("#all th a", has_text="<img").click()
    expect(page.locator("#leaderboard thead")).to_contain_text(LINK)
    expect(page.locator("#chart-objective .main-svg").first).to_be_attached()
    expect(page.locator("h1")).to_have_text(f"name {EVIL}")
    assert page.locator("img, a[href*=evil], svg a").count() == 0
    assert page.title() != "owned"


def test_a_report_can_ask_nothing(browser: Browser, world: World) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(world.url)
        page.goto(f"{world.root}runs/tickets/report.html")
        wait_for(lambda: page.wait_for_timeout(20) or said)
        assert "Content Security Policy" in said[0]
        assert page.title() == "closed"


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    """Somebody with the cookie."""
    with httpx.Client(base_url=world.root, headers={"origin": world.root.rstrip("/")}) as known:
        entered = known.get(world.url)
        assert entered.status_code == 303
        assert {"HttpOnly", "SameSite=strict"} <= set(entered.headers["set-cookie"].split("; "))
        yield known


@pytest.mark.parametrize("path", ["/api/runs", "/plotly.js", "/runs/tickets/report.html", "/api/runs/tickets", "/x"])
def test_nobody_is_shown_anything_without_the_token(path: str, world: World) -> None:
    assert httpx.get(f"{world.root}{path[1:]}").status_code == 401
    assert httpx.get(f"{world.root}{path[1:]}", cookies={"ftlib-ui": "x"}).status_code == 401


def test_a_wrong_token_opens_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.report.door.PAUSE", 0)
    wrong = httpx.get(world.root, params={"token": "x"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "That is not the key." in wrong.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_another_name_is_refused(host: str, client: httpx.Client) -> None:
    assert client.get("/api/runs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
def test_another_site_sends_no_command(origin: str, client: httpx.Client, world: World) -> None:
    body = {"do": "stop", "trial": "000", "changes": []}
    assert client.post("/api/runs/support/ask", json=body, headers={"origin": origin}).status_code == 403
    assert commands.waiting(world.run("support")) == []
    assert "access-control-allow-origin" not in client.get("/api/runs", headers={"origin": origin}).headers


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        ({"content": b"do=stop", "headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ({"json": {"do": "x" * 20_000}}, 413, "larger than 16,384 bytes"),
        ({"json": []}, 200, "A command has 'do', 'trial' and 'changes'"),
        ({"json": {"do": "add", "trial": "000", "changes": []}}, 200, "no command 'add'"),
        ({"json": {"do": "stop", "trial": "000", "changes": ["a=1"]}}, 200, "'stop' takes no changes"),
        ({"json": {"do": "stop", "trial": "../../tickets", "changes": []}}, 200, "has no trial '../../tickets'"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 200, "no JSON"),
    ],
)
def test_a_command_that_is_none_is_refused(sent: Any, status: int, sentence: str, client: httpx.Client) -> None:
    answer = client.post("/api/runs/support/ask", **sent)
    assert answer.status_code == status
    assert sentence in answer.text
    assert answer.json().get("worked") is not True


def test_a_run_that_has_ended_takes_no_command(client: httpx.Client) -> None:
    told = client.post("/api/runs/tickets/ask", json={"do": "boost", "trial": "000", "changes": []}).json()
    assert not told["worked"]
    assert "is not running: 'ftlib resume " in told["sentence"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/%2e%2e",
        "/api/runs/..%2f..%2fetc",
        "/api/runs/%2fetc",
        "/runs/..%2foutside/report.html",
        "/runs/linked/report.html",
        "/runs/support/report.html",
        "/runs/tickets/trials%2f000/report.html",
        "/api/beside?a=tickets&b=../outside",
        "/etc/passwd",
    ],
)
def test_no_path_leaves_the_folder(path: str, client: httpx.Client, world: World) -> None:
    outside = world.folder.parent / "outside"
    if not outside.exists():
        make_run(world.folder.parent, 1, name="outside").path.rename(outside)
        (outside / layout.REPORT).write_text("secret")
        (world.folder / "linked").symlink_to(outside)
        (world.run("support").path / layout.REPORT).symlink_to(outside / layout.REPORT)
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert "linked" not in {run["name"] for run in client.get("/api/runs").json()["runs"]}


def test_the_card_of_a_step_is_that_of_its_version(client: httpx.Client) -> None:
    assert client.get("/pipelines/manual/data/card").status_code == 404
    data_versions.register("manual", lambda folder: {"data": {}}, lambda told: "<b>the card</b>")
    card = client.get("/pipelines/manual/data/card")
    assert (card.text, card.headers["content-type"]) == ("<b>the card</b>", "text/plain; charset=utf-8")
    for path in ("manual/sft", "manual/none", "none/data", "..%2fpipelines%2fmanual/data", "damaged/data"):
        assert client.get(f"/pipelines/{path}/card").status_code in (404, 500), path


def test_what_has_not_changed_is_not_sent_again(client: httpx.Client, world: World) -> None:
    first = client.get("/api/runs/tickets")
    asked = {"if-none-match": first.headers["etag"]}
    assert client.get("/api/runs/tickets", headers=asked).status_code == 304
    append_row(world.run("tickets").path / layout.EVENTS, event(2000, "tracker_failed", why="it is away"))
    changed = wait_for(lambda: (answer := client.get("/api/runs/tickets", headers=asked)).content and answer)
    assert changed.json()["news"][0]["text"] == "tracker failed: it is away"


def test_a_run_is_read_again_where_a_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "REST", 0)
    run, read = make_run(tmp_path, 2), []

    def tell(still: Run) -> dict[str, Any]:
        read.append(still.path)
        return summary(still)

    runs = Runs(tmp_path)
    first = [runs.look([run], tell) for _ in range(3)]
    assert (len(set(first)), len(read)) == (1, 1)
    append_row(run.trial("000").metrics_path, row(99, 0.001))
    assert json.loads(runs.look([run], tell))["best"] == "0.001"
    assert not (run.path / layout.LOCK).exists()  # looking makes no file


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (layout.RESOLVED, "[]"),
        (layout.RESOLVED, '{"objective": ["a", "min"], "experiment": {"sweep": 3, "model": 7}}'),
        (layout.EVENTS, '{"event": "created", "time": NaN}\n{"event": "x", "time": 1e999, "why": []}\n'),
        (layout.EVALUATION, '{"tasks": 3}'),
        ("trials/000/metrics.jsonl", '{"step": 1, "tokens": NaN, "eval_loss": 1}\n{"step": 2, "eval_loss": 2}\n'),
        ("trials/000/metrics.jsonl", f'{{"step": 1, "eval_loss": 1{"0" * 400}}}\n'),
        ("trials/000/params.json", '{"a": NaN, "b": {"c": [1]}}'),
    ],
)
def test_a_damaged_run_is_a_line_that_says_so(file: str, content: str, tmp_path: Path) -> None:
    run, other = make_run(tmp_path, 2), make_run(tmp_path, 2)
    (run.path / file).write_text(content)
    runs = Runs(tmp_path)
    told = {one["name"]: one for one in json.loads(runs.overview())["runs"]}
    assert "damaged" not in told[other.name]
    assert told[run.name].get("damaged", "-") != ""
    for tell in (live_page.details, live_page.beside):
        json.loads(runs.look([run, other] if tell is live_page.beside else [run], tell), parse_constant=pytest.fail)


def test_other_machines_need_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.report.door.PAUSE", 0)
    with pytest.raises(InputError, match=r"--host 0\.0\.0\.0 is reachable from other machines: give an --api-key"):
        served(tmp_path, "0.0.0.0").__enter__()
    with served(tmp_path, "0.0.0.0", api_key="s3cret") as url, httpx.Client() as client:
        assert "s3cret" not in url
        at = f"http://127.0.0.1:{url.rpartition(':')[2]}"
        assert "Key" in client.get(at).text
        origin = {"origin": at.rstrip("/")}
        assert client.post(f"{at}door", data={"key": "wrong"}, headers=origin).status_code == 401
        assert client.post(f"{at}door", data={"key": "s3cret"}).status_code == 403
        assert client.post(f"{at}door", data={"key": "s3cret"}, headers=origin).status_code == 303
        assert client.get(f"{at}api/runs").json()["runs"] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("ftp://b/runs",), "'ftp://b/runs' is no place that can be reached"), (("nowhere",), "nowhere is no folder")],
)
def test_what_is_no_folder_is_refused(words: tuple[str, ...], sentence: str) -> None:
    status, told = ftlib("ui", *words)
    assert status == 2
    assert sentence in told


def test_a_port_that_is_taken_is_refused(world: World) -> None:
    port = int(world.root.rpartition(":")[2].strip("/"))
    with pytest.raises(InputError, match=f"--port {port} cannot be used"):
        served(world.folder, port=port).__enter__()
