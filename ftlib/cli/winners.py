"""The commands of winners: promote, try, roll back, serve, watch, and say who may ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftlib.cli import complete
from ftlib.driver.terminal import echo, print_table, say

if TYPE_CHECKING:
    from ftlib.models.adapter_files import Engine
    from ftlib.registry.version import Alias, Version
    from ftlib.run.leaderboard import Leaderboard, Row


TRUST = click.option("--trust", is_flag=True, help="Let code run that comes with weights which others have made.")


@click.command()
@click.argument("run", type=click.Path(), shell_complete=complete.runs)
@click.argument("trial", required=False, shell_complete=complete.trials)
@click.option("--as", "name", required=True, metavar="NAME", help="The name to serve it under.")
@click.option("--canary", type=float, metavar="SHARE", help="Try it on this share of NAME's requests, 0.1 for example.")
@click.option(
    "--engine", type=click.Choice(["bank", "vllm"]), default="bank", show_default=True, help="What serves it."
)
@click.option("--max-rank", type=click.IntRange(1), metavar="R", help="The largest rank that the engine is set up for.")
@click.option("--merged", is_flag=True, help="Promote the model that the adapter gives, computed into its base.")
@click.option("--unless-worse-than", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Only if its loss on FILE is no higher than that of the version NAME means now.")  # fmt: skip
@click.option("--slack", type=float, default=0.0, metavar="X", help="How much higher it may be: 0.01 for one per cent.")
@click.option("--if-better-than", "better", metavar="NAME",
              help="Only if it does the tasks better than NAME by more than chance, and has forgotten nothing: base, "
              "few_shot, rag, or a name in the registry; of a classifier majority, base, or a name.")  # fmt: skip
@click.option("--no-worse-than", "no_worse", metavar="NAME",
              help="Only if it does the tasks no worse than NAME by --margin, and has forgotten nothing.")  # fmt: skip
@click.option("--margin", type=float, metavar="X",
              help="How much worse it may be, in the metric's unit. Default: 0.02, two points of a share.")  # fmt: skip
@click.option("--task", metavar="NAME", help="The task to compare on. Default: each task of the role target.")
@click.option("--prefer", type=click.Choice(["best", "cheapest"]), default="best", show_default=True,
              help="Which trial of RUN: the best, or the cheapest of those that are near it (--within).")  # fmt: skip
@click.option("--within", metavar="X", help="How far from the best the cheapest may be: 1%, or 0.01 of the metric.")
@click.option("--no-gate", is_flag=True, help="Skip the checks of logits, chat template and loss.")
@TRUST
def promote(
    run: str,
    trial: str | None,
    name: str,
    canary: float | None,
    engine: Engine,
    max_rank: int | None,
    merged: bool,
    file: Path | None,
    slack: float,
    better: str | None,
    no_worse: str | None,
    margin: float | None,
    task: str | None,
    prefer: str,
    within: str | None,
    no_gate: bool,
    trust: bool,
) -> None:
    """Put a trial of RUN (the best, unless named) into the registry as the next version of NAME, once it is checked."""
    from ftlib.driver.promote import promote_trial
    from ftlib.driver.task_gate import Conditions
    from ftlib.errors import InputError, nearest
    from ftlib.registry import registry
    from ftlib.run.leaderboard import leaderboard
    from ftlib.run.remote_run import bring_weights, open_run

    conditions = Conditions(
        canary, engine, max_rank, merged, not no_gate, file, slack, trust, better, no_worse, margin, task
    )
    opened = open_run(run)
    best = _preferred(leaderboard(opened), prefer, within, trial)
    if trial is None and best is None:
        raise InputError(f"{opened.path} has no trial with an evaluation yet: nothing can be promoted.")
    chosen = trial or (best.trial if best else "")
    known = [candidate.id for candidate in opened.trials()]
    if chosen not in known:
        raise InputError(f"{opened.path} has no trial '{chosen}'.{nearest(chosen, known)}")
    bring_weights(opened, opened.trial(chosen))
    promote_trial(opened, chosen, name, conditions)
    if canary is not None:
        _say_alias(registry.alias(name))
        echo(f"all of it: ftlib canary {name} 1        none of it: ftlib rollback {name}")


def _preferred(board: Leaderboard, prefer: str, within: str | None, trial: str | None) -> Row | None:
    """The best trial, or the one that --prefer and --within choose. Raises InputError where these do not fit."""
    from ftlib.errors import InputError
    from ftlib.run.choice import cheapest

    if prefer == "best":
        if within is not None:
            raise InputError("--within belongs to --prefer cheapest: add it, or leave --within out.")
        return board.best
    if trial is not None:
        raise InputError(f"--prefer chooses a trial, and '{trial}' is named: leave one of them out.")
    if within is None:
        raise InputError("--prefer cheapest needs --within: how far from the best it may be, such as 1%.")
    found = cheapest(board, within)
    say(f"trial {found.trial} is the cheapest within {within} of the best, {board.best.trial if board.best else ''}")
    return found


@click.command("registry")
def show_registry() -> None:
    """List the names, their versions, and which version each name serves."""
    from rich import box
    from rich.table import Table

    from ftlib.errors import FtlibError
    from ftlib.registry import registry

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("version", "served", "kind", "base", "parent", "eval_loss", "from"):
        table.add_column(heading, no_wrap=True)
    troubles = []
    for name, alias in registry.aliases().items():
        served: dict[Version | None, str] = {}
        if isinstance(alias, FtlibError):
            troubles.append(str(alias))
        else:
            served = {alias.version: "yes", alias.canary: f"canary {alias.share:.3g}"}
        for version in registry.versions(name):
            try:
                table.add_row(version.id, served.get(version, ""), *_of_version(version))
            except FtlibError as error:
                troubles.append(str(error))
                table.add_row(version.id, served.get(version, ""), "damaged")
    if not table.row_count and not troubles:
        echo("the registry is empty: promote a trial with 'ftlib promote RUN --as NAME'")
        return
    print_table(table)
    for trouble in troubles:
        say(f"warning: {trouble}")


def _of_version(version: Version) -> tuple[str, ...]:
    """The kind, base, parent, loss and origin of a version. Raises FtlibError for a damaged manifest."""
    manifest = version.manifest
    loss = (manifest.get("metrics") or {}).get("eval_loss")
    merged = (manifest.get("merge") or {}).get("method")
    return (
        version.kind,
        version.base,
        version.parent or "",
        "" if loss is None else f"{loss:.4f}",
        f"merged, {merged}" if merged else f"{Path(manifest.get('run') or '?').name}/{manifest.get('trial', '?')}",
    )


@click.command("canary")
@click.argument("name", shell_complete=complete.names)
@click.argument("share", type=float)
def move_canary(name: str, share: float) -> None:
    """Try the canary of NAME on another SHARE of its requests; 0 ends it, 1 makes it what NAME means."""
    from ftlib.registry import registry

    _say_alias(registry.canary(name, share))


@click.command()
@click.argument("name", shell_complete=complete.names)
def rollback(name: str) -> None:
    """End the canary of NAME; where there is none, serve the version that was served before the current one."""
    from ftlib.registry import registry

    echo(f"{name} is now {registry.rollback(name).id}")


def _say_alias(alias: Alias) -> None:
    tried = f", and {alias.canary.id} for {alias.share:.3g} of its requests" if alias.canary else ""
    echo(f"{alias.version.name} is now {alias.version.id}{tried}")


@click.group()
def keys() -> None:
    """The keys that the endpoint asks for: make, list and remove them."""


@keys.command("add")
@click.argument("name")
@click.option("--adapters", default="", metavar="NAME,...", help="The only names it may ask for (all, unless given).")
@click.option("--requests-per-minute", type=int, metavar="N", help="No limit, unless given.")
def add_key(name: str, adapters: str, requests_per_minute: int | None) -> None:
    """Make a key called NAME and print it: it is kept nowhere, and cannot be shown again."""
    from ftlib.registry import keys, registry

    allowed = [adapter.strip() for adapter in adapters.split(",") if adapter.strip()]
    token = keys.add(name, allowed, requests_per_minute)
    for adapter in sorted(set(allowed) - set(registry.names())):
        echo(f"warning: '{adapter}' is not in the registry yet", fg="yellow", err=True)
    echo(token)


@keys.command("list")
def list_keys() -> None:
    """List the keys: their names, what each may ask for, and how often."""
    from rich import box
    from rich.table import Table

    from ftlib.registry.keys import Keys

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("key", "adapters", "requests a minute", "created"):
        table.add_column(heading, no_wrap=True)
    for key in Keys.load():
        table.add_row(key.name, ", ".join(key.adapters) or "all", str(key.requests_per_minute or "any"), key.created)
    if not table.row_count:
        echo("there are no keys: make one with 'ftlib keys add NAME'")
        return
    print_table(table)


@keys.command("remove")
@click.argument("name")
def remove_key(name: str) -> None:
    """Forget the key NAME: requests with it are refused from then on."""
    from ftlib.registry import keys

    keys.remove(name)
    echo(f"key {name} is gone")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME | KEY=VALUE]...", shell_complete=complete.names)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--api-key", envvar="FTLIB_API_KEY", help="Ask for this key. Needed, or --keys, to bind wider than loopback."
)
@click.option("--keys", is_flag=True, help="Ask for a key of 'ftlib keys'.")
@TRUST
def serve(names: tuple[str, ...], host: str, port: int, api_key: str | None, keys: bool, trust: bool) -> None:
    """Serve the winners NAMES (all, unless given) side by side behind an OpenAI-compatible API, until Ctrl-C.

    Promotions and rollbacks are followed while it runs. Options by path: engine.max_rows=64 replicas.max=4

    Ctrl-C and SIGTERM end it: new requests hear 503, and what was begun is finished, for up to 30 s. A second one ends
    it at once.
    """
    import signal
    from importlib import import_module

    from ftlib.cluster.session import start_ray
    from ftlib.registry.keys import default_path

    application = import_module("serve.front.app")  # the application imports ftlib, never the reverse
    options = application.options([name for name in names if "=" in name])
    if keys:
        options["keys"] = str(default_path())
    if trust:
        options["trust"] = True
    start_ray()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there
    url = application.start([name for name in names if "=" not in name], host, port, api_key=api_key, **options)
    ending = _Ending()
    if not application.bounded(url):
        say(f"warning: headers of requests have no bounds, since Ray was started without {application.HOOKED}")
    served = ", ".join(name for name in names if "=" not in name) or "all that is promoted"
    echo(f"serving {served} at {url}/v1 (Ctrl-C stops)")
    ending.wait()
    echo("stopping: what was begun is finished (Ctrl-C again stops at once)")
    try:
        left = application.drain()
    finally:
        application.stop()
    if left:
        say(f"warning: {left} requests were not finished in time")


class _Ending:
    """Listens for Ctrl-C and SIGTERM: `wait` waits for the first one, and the second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        import signal
        from threading import Event

        self._told = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._tell)

    def wait(self) -> None:
        """Returns after the first Ctrl-C or SIGTERM."""
        while not self._told.wait(3600):
            pass

    def _tell(self, *_: object) -> None:
        if self._told.is_set():
            raise KeyboardInterrupt
        self._told.set()


@click.command("monitor")
@click.argument("name", shell_complete=complete.names)
@click.option("--log", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A log to read, again for more (the endpoint's own, unless given).")  # fmt: skip
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), metavar="H", help="Only the last H hours.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def show_drift(name: str, files: tuple[Path, ...], hours: float | None, as_json: bool) -> None:
    """Compare the traffic of NAME (or NAME@VERSION) with the data that it was trained on, and say what drifted."""
    import json

    from ftlib.registry.monitor import monitor, to_table

    report = monitor(name, files, hours)
    if as_json:
        echo(json.dumps(report.to_json(), indent=2))
        return
    statuses = ", ".join(f"{count} x {status}" for status, count in report.statuses.items())
    echo(f"{report.version}: {report.requests} requests ({statuses}), {report.samples} of them sampled")
    print_table(to_table(report))
    if report.damaged:
        say(f"warning: {report.damaged} lines of the logs are no JSON, and were left out")
    for note in report.notes:
        say(f"warning: {note}")
    drifted = ", ".join(finding.what for finding in report.drifted)
    say(f"warning: drifted: {drifted}" if drifted else "nothing drifted")


COMMANDS = (promote, show_registry, move_canary, rollback, keys, serve, show_drift)
