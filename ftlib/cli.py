"""The doors: each command parses, makes one call, prints. Heavy imports stand inside the commands.

Exit status: 0 worked, 1 the work failed, 2 the input was wrong, 130 interrupted (and can be resumed).
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

import click

from ftlib import cli_cluster

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ftlib.config import Experiment
    from ftlib.data import Prepared
    from ftlib.registry.registry import Alias
    from ftlib.registry.weights import Engine
    from ftlib.runs import Run
    from ftlib.sweep.commands import Command

EXPERIMENT = click.argument("file", type=click.Path())
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
ANSWER_SECONDS = 60
SMOKE = click.option("--smoke", is_flag=True, help="Set what FILE's section smoke says: a minute on a CPU.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ftlib")
@click.option("--debug", is_flag=True, help="Show tracebacks and the libraries' own logs.")
def cli(debug: bool) -> None:
    """One YAML file and one command: from a base model and data to the best fine-tune of it, served.

    Any key of an experiment can be overridden: ftlib sweep x.yaml sweep.num_samples=8 train.learning_rate=1e-4
    """
    if not debug:
        quiet_libraries()


@cli.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
def check(file: str, overrides: tuple[str, ...], smoke: bool) -> None:
    """Validate FILE, fill in every default, estimate parameters, memory and steps. Starts nothing."""
    import yaml

    from ftlib.estimate import estimate
    from ftlib.sweep.cost import expected

    experiment = load(file, overrides, smoke)
    console = _console()
    console.print(yaml.safe_dump(experiment.to_dict(), sort_keys=False, width=110), highlight=False, soft_wrap=True)
    data = _prepare(experiment, console)
    found = estimate(experiment, data.report)
    console.print(found.summary(), highlight=False, soft_wrap=True)
    price = expected(experiment, found.tokens)
    if price is not None:
        console.print(f"cost:       {price}", highlight=False, soft_wrap=True)
    if experiment.sweep is not None:
        console.print(f"a sweep:    {experiment.sweep.number_of_trials} trials, {_packed(experiment)}")


@cli.command()
@click.option("--markdown", is_flag=True, help="Print docs/compatibility.md.")
def methods(markdown: bool) -> None:
    """Print which methods, adapters, quantizations and backends go together, and why others do not."""
    from rich import box
    from rich.table import Table

    from ftlib import compatibility
    from ftlib.config.compat import RULES

    if markdown:
        click.echo(compatibility.markdown(), nl=False)
        return
    for each in compatibility.tables():
        table = Table(title=each.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("method", *each.columns):
            table.add_column(heading, no_wrap=True)
        for name, cells in each.rows.items():
            table.add_row(name, *map(compatibility.cell, cells))
        print_table(table)
    for number, rule in enumerate(RULES, 1):
        click.echo(f"{number:3}  {rule.sentence}")


@cli.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
def train(file: str, overrides: tuple[str, ...], smoke: bool) -> None:
    """Train FILE once, as it stands (its sweep section is left aside)."""
    experiment = load(file, overrides, smoke)
    _start(experiment.model_copy(update={"sweep": None}), file, overrides, smoke)


@cli.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
@click.option("--add-trials", type=click.IntRange(1), metavar="N", help="FILE is a run: N trials more for it.")
def sweep(file: str, overrides: tuple[str, ...], smoke: bool, add_trials: int | None) -> None:
    """Run the sweep of FILE; ends with the leaderboard and the command that promotes the winner."""
    from ftlib.errors import ConfigError

    if add_trials is not None:
        _add_trials(file, add_trials)
        return
    experiment = load(file, overrides, smoke)
    if experiment.sweep is None:
        raise ConfigError(f"{file}: there is no sweep section: add one, or use 'ftlib train {file}'.")
    _start(experiment, file, overrides, smoke)


@cli.command()
@click.argument("run", type=click.Path())
@click.option("--trust", is_flag=True, help="Load a run that was made elsewhere: it can run any code of its maker's.")
def resume(run: str, trust: bool) -> None:
    """Go on with RUN after a crash, a Ctrl-C or a preemption. Finished trials are not run again."""
    from ftlib.config import Experiment
    from ftlib.storage.mirror import open_run

    opened = open_run(run)
    experiment = Experiment.parse(opened.resolved["experiment"], f"{opened.path}/resolved.json")
    go_on(experiment, opened, trust)


@cli.group()
def trial() -> None:
    """Steer a running sweep, from any terminal: stop, resume, clone or boost one of its trials."""


def _steers(deed: Literal["stop", "resume", "clone", "boost"], help: str) -> None:
    """Adds `ftlib trial DEED RUN TRIAL`."""

    def steer(run: str, trial: str, overrides: tuple[str, ...] = ()) -> None:
        from ftlib.config.loader import parse_override
        from ftlib.runs import Run
        from ftlib.sweep.commands import Command

        changes = dict(parse_override(override) for override in overrides)
        _steer(Run.open(run), Command(deed, trial, changes))

    if deed in ("clone", "boost"):
        steer = OVERRIDES(steer)
    steer = click.argument("trial")(steer)
    trial.command(deed, help=help)(click.argument("run", type=click.Path())(steer))


_steers("stop", "Stop TRIAL of RUN where it stands; what it has learned is kept.")
_steers("resume", "Go on with the stopped TRIAL of RUN; the scheduler stops it no more.")
_steers("clone", "One more trial for RUN: TRIAL with other values, from its weights where its shape stays the same.")
_steers("boost", "Train TRIAL of RUN to its end whatever the scheduler says, or longer: train.num_train_epochs=6")


def _steer(run: Run, command: Command) -> None:
    """Sends a command to the driver of a run and prints what came of it."""
    from ftlib.errors import FtlibError, InputError, nearest
    from ftlib.sweep.commands import answer, send

    known = [each.id for each in run.trials()]
    if command.trial is not None and command.trial not in known:
        raise InputError(f"{run.path} has no trial '{command.trial}'.{nearest(command.trial, known)}")
    if not run.conducted:
        raise InputError(f"{run.path} is not running: 'ftlib resume {run.path}' goes on with it.")
    name = send(run, command)
    answered = answer(run, name, ANSWER_SECONDS)
    if answered is None:
        raise FtlibError(f"the sweep has not answered for {ANSWER_SECONDS} s; it will do it when it comes to it.")
    worked, sentence = answered
    if not worked:
        raise InputError(sentence)
    click.echo(sentence)


def _add_trials(path: str, count: int) -> None:
    """More trials for a run that is at work, or that is resumed with them."""
    from ftlib.cluster import signature
    from ftlib.config import Experiment
    from ftlib.runs import Run
    from ftlib.sweep.commands import Command, send

    run, command = Run.open(path), Command("add", count=count)
    if run.conducted:
        _steer(run, command)
        return
    signature.check(run)  # before anything is left in it: resuming loads what it holds
    send(run, command)
    experiment = Experiment.parse(run.resolved["experiment"], f"{run.path}/resolved.json")
    go_on(experiment, run)


@cli.command("leaderboard")
@click.argument("run", type=click.Path())
@click.option("--csv", "as_csv", is_flag=True, help="Print the CSV instead of the table.")
def show_leaderboard(run: str, as_csv: bool) -> None:
    """The trials of RUN, best first, with the untuned base above them."""
    from ftlib.leaderboard import to_csv, to_table, write_leaderboard
    from ftlib.storage.mirror import open_run

    board = write_leaderboard(open_run(run))
    if as_csv:
        click.echo(to_csv(board), nl=False)
    else:
        print_table(to_table(board, width=_width()))


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("trial", required=False)
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
@click.option("--no-gate", is_flag=True, help="Skip the checks of logits, chat template and loss.")
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
    no_gate: bool,
) -> None:
    """Put a trial of RUN (the best, unless named) into the registry as the next version of NAME, once it is checked."""
    from ftlib.errors import InputError, nearest
    from ftlib.leaderboard import leaderboard
    from ftlib.registry import promotion, registry
    from ftlib.storage.mirror import bring_weights, open_run

    conditions = promotion.Conditions(canary, engine, max_rank, merged, not no_gate, file, slack)
    opened = open_run(run)
    best = leaderboard(opened).best
    if trial is None and best is None:
        raise InputError(f"{opened.path} has no trial with an evaluation yet: nothing can be promoted.")
    chosen = trial or (best.trial if best else "")
    known = [each.id for each in opened.trials()]
    if chosen not in known:
        raise InputError(f"{opened.path} has no trial '{chosen}'.{nearest(chosen, known)}")
    bring_weights(opened, opened.trial(chosen))
    version = promotion.promote(opened, opened.trial(chosen), name, conditions, _say)
    click.echo(f"trial {chosen} of {opened.name} is now {version.id}")
    if canary is None:
        click.echo(f"serve it:  ftlib serve {name}")
    else:
        _say_alias(registry.alias(name))
        click.echo(f"all of it: ftlib canary {name} 1        none of it: ftlib rollback {name}")


def _say(sentence: str) -> None:
    click.secho(sentence, fg="yellow" if sentence.startswith("warning") else None)


@cli.command("registry")
def show_registry() -> None:
    """List the names, their versions, and which version each name serves."""
    from rich import box
    from rich.table import Table

    from ftlib.registry import registry

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("version", "served", "kind", "base", "eval_loss", "from"):
        table.add_column(heading, no_wrap=True)
    for name in registry.names():
        alias = registry.alias(name)
        served = {alias.version: "yes", alias.canary: f"canary {alias.share:.3g}"}
        for version in registry.versions(name):
            manifest = version.manifest
            table.add_row(
                version.id,
                served.get(version, ""),
                version.kind,
                manifest["base"]["name_or_path"],
                f"{manifest['metrics'].get('eval_loss', float('nan')):.4f}",
                f"{Path(manifest['run']).name}/{manifest['trial']}",
            )
    if not table.row_count:
        click.echo("the registry is empty: promote a trial with 'ftlib promote RUN --as NAME'")
        return
    print_table(table)


@cli.command("canary")
@click.argument("name")
@click.argument("share", type=float)
def move_canary(name: str, share: float) -> None:
    """Try the canary of NAME on another SHARE of its requests; 0 ends it, 1 makes it what NAME means."""
    from ftlib.registry import registry

    _say_alias(registry.canary(name, share))


@cli.command()
@click.argument("name")
def rollback(name: str) -> None:
    """End the canary of NAME; where there is none, serve the version that was served before the current one."""
    from ftlib.registry import registry

    click.echo(f"{name} is now {registry.rollback(name).id}")


def _say_alias(alias: Alias) -> None:
    tried = f", and {alias.canary.id} for {alias.share:.3g} of its requests" if alias.canary else ""
    click.echo(f"{alias.version.name} is now {alias.version.id}{tried}")


@cli.group()
def keys() -> None:
    """The keys that the endpoint asks for: make, list and remove them."""


@keys.command("add")
@click.argument("name")
@click.option("--adapters", default="", metavar="NAME,...", help="The only names it may ask for (all, unless given).")
@click.option("--requests-per-minute", type=int, metavar="N", help="No limit, unless given.")
def add_key(name: str, adapters: str, requests_per_minute: int | None) -> None:
    """Make a key called NAME and print it: it is kept nowhere, and cannot be shown again."""
    from ftlib.registry import keys, registry

    allowed = [each.strip() for each in adapters.split(",") if each.strip()]
    token = keys.add(name, allowed, requests_per_minute)
    for each in sorted(set(allowed) - set(registry.names())):
        click.secho(f"warning: '{each}' is not in the registry yet", fg="yellow", err=True)
    click.echo(token)


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
        click.echo("there are no keys: make one with 'ftlib keys add NAME'")
        return
    print_table(table)


@keys.command("remove")
@click.argument("name")
def remove_key(name: str) -> None:
    """Forget the key NAME: requests with it are refused from then on."""
    from ftlib.registry import keys

    keys.remove(name)
    click.echo(f"key {name} is gone")


@cli.command("merge")
@click.argument("adapter")
@click.argument("out", type=click.Path(path_type=Path))
def merge_adapter(adapter: str, out: Path) -> None:
    """Compute ADAPTER (NAME, NAME@VERSION, or a trial's adapter folder) into its base, and write the model to OUT."""
    from ftlib.errors import InputError
    from ftlib.registry import registry
    from ftlib.runs import read_json

    folder = Path(adapter) if Path(adapter).is_dir() else registry.resolve(adapter).weights
    manifest = read_json(folder.parent / "manifest.json")
    if manifest is None:
        raise InputError(f"{folder} has no manifest.json beside it, which would name its base.")
    if manifest.get("kind") == "model":
        raise InputError(f"{adapter} is a whole model already: there is nothing to merge.")
    from ftlib.adapters.merge import merge
    from ftlib.models import base_of

    merge(folder, base_of(manifest, adapter), out)
    click.echo(f"merged into {out}")


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME | KEY=VALUE]...")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--api-key", envvar="FTLIB_API_KEY", help="Ask for this key. Needed, or --keys, to bind wider than loopback."
)
@click.option("--keys", is_flag=True, help="Ask for a key of 'ftlib keys'.")
def serve(names: tuple[str, ...], host: str, port: int, api_key: str | None, keys: bool) -> None:
    """Serve the winners NAMES (all, unless given) side by side behind an OpenAI-compatible API, until Ctrl-C.

    Promotions and rollbacks are followed while it runs. Options by path: engine.max_rows=64 replicas.max=4
    """
    import signal
    from importlib import import_module

    from ftlib.registry.keys import default_path
    from ftlib.sweep.sweep import start_ray

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was begun is answered
    application = import_module("serve.app")  # the application imports ftlib, never the reverse
    options = application.options([each for each in names if "=" in each])
    if keys:
        options["keys"] = str(default_path())
    start_ray()
    try:
        url = application.start([each for each in names if "=" not in each], host, port, api_key=api_key, **options)
        served = ", ".join(each for each in names if "=" not in each) or "all that is promoted"
        click.echo(f"serving {served} at {url}/v1 (Ctrl-C stops)")
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("stopping")
        application.stop()


@cli.command("monitor")
@click.argument("name")
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
        click.echo(json.dumps(report.to_json(), indent=2))
        return
    statuses = ", ".join(f"{count} x {status}" for status, count in report.statuses.items())
    click.echo(f"{report.version}: {report.requests} requests ({statuses}), {report.samples} of them sampled")
    print_table(to_table(report))
    if report.damaged:
        _say(f"warning: {report.damaged} lines of the logs are no JSON, and were left out")
    for note in report.notes:
        _say(f"warning: {note}")
    drifted = ", ".join(finding.what for finding in report.drifted)
    _say(f"warning: drifted: {drifted}" if drifted else "nothing drifted")


for door in cli_cluster.DOORS:
    cli.add_command(door)


def program() -> None:
    """The console script: `main`, and out at once. Python would take torch and the others down piece by piece, which
    takes it two seconds."""
    try:
        main()
    except SystemExit as ended:
        with suppress(KeyboardInterrupt, OSError):
            if "ray" in sys.modules:
                import ray

                ray.shutdown()  # as it would be at exit, but without its pause
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


def main() -> None:
    """Turns every failure into one sentence and an exit status."""
    guarded(lambda: cli.main(standalone_mode=False), debug="--debug" in sys.argv)


def guarded(work: Callable[[], Any], debug: bool) -> None:
    """Does the work of a process and exits with its status; every failure is one sentence."""
    from ftlib.errors import FtlibError

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
    click.secho(f"error: {message}", fg="red", err=True)
    sys.exit(status)


def load(file: str, overrides: tuple[str, ...], smoke: bool = False) -> Experiment:
    """The experiment in a file, its paths absolute and what it names of the registry found. Raises InputError."""
    from ftlib.config import Experiment
    from ftlib.errors import ConfigError
    from ftlib.registry import registry

    experiment = Experiment.load(file, overrides, smoke)
    name = experiment.model.name_or_path
    if name.startswith("registry:"):  # a promoted full model as the base of the next experiment
        version = registry.resolve(name.removeprefix("registry:"))
        if version.kind != "model":
            raise ConfigError(f"model.name_or_path: {version.id} is an adapter, and a base must be a whole model.")
        model = experiment.model.model_copy(update={"name_or_path": str(version.weights)})
        experiment = experiment.model_copy(update={"model": model})
    teacher = getattr(experiment.method, "teacher", "")
    if teacher.startswith("registry:"):  # an adapter too: it is put on its base
        version = registry.resolve(teacher.removeprefix("registry:"))
        method = experiment.method.model_copy(update={"teacher": str(version.path)})
        experiment = experiment.model_copy(update={"method": method})
    for index, reward in enumerate(getattr(experiment.method, "rewards", [])):
        name = reward.arguments.get("model")
        if isinstance(name, str) and name.startswith("registry:"):  # a promoted reward model, whole or an adapter
            folder = str(registry.resolve(name.removeprefix("registry:")).weights)
            tree = experiment.to_dict()
            tree["method"]["rewards"][index]["arguments"]["model"] = folder
            experiment = Experiment.parse(tree)
    return experiment.anchored()


def _prepare(experiment: Experiment, console: Console) -> Prepared:
    from ftlib.adapters.build import empty_model
    from ftlib.data import prepare
    from ftlib.methods import check as check_method
    from ftlib.models import load_tokenizer

    with console.status("preparing data"):
        check_method(experiment)
        # A wrong config key or target module is said now.
        empty_model(experiment.model, experiment.adapter, experiment.method.head)
        tokenizer = load_tokenizer(experiment.model, experiment.method.head)
        data = prepare(experiment.data, experiment.method.rows, tokenizer)
    console.print(data.report.summary(), highlight=False, soft_wrap=True)
    return data


def _start(experiment: Experiment, file: str, overrides: tuple[str, ...], smoke: bool = False) -> None:
    start(experiment, as_written(file, overrides, smoke))


def as_written(file: str, overrides: tuple[str, ...], smoke: bool) -> str:
    """The text of an experiment's file, and what was set beside it."""
    text = Path(file).read_text(encoding="utf-8")
    if smoke:
        text += "# --smoke\n"
    return text + "".join(f"# override: {override}\n" for override in overrides)


def start(experiment: Experiment, text: str, run_name: str | None = None, parcel: dict[str, Any] | None = None) -> None:
    """A new run: everything that can be wrong is found before its directory exists.

    `run_name` is the directory's, where it is fixed; `parcel` says where the inputs of a job came from.
    """
    from ftlib.cluster import signature
    from ftlib.runs import Run
    from ftlib.storage.mirror import local_storage
    from ftlib.sweep.sweep import check_resources, first_host, start_ray
    from ftlib.tracking import wandb_mode

    if experiment.track.wandb is not None:
        wandb_mode(experiment.track.wandb)
    Thread(target=_import_libraries, daemon=True).start()  # Ray's processes start meanwhile
    start_ray()
    check_resources(experiment)
    hosts = first_host(experiment)  # it imports its libraries while the data is prepared
    data = _prepare(experiment, _console())
    resolved = _resolved(experiment, data) | ({"parcel": parcel} if parcel else {})
    run = Run.create(local_storage(experiment.storage), experiment.name, text, resolved, run_name)
    signature.sign(run)
    _conduct(experiment, run, data=data, hosts=hosts)


def go_on(experiment: Experiment, run: Run, trust: bool = False) -> None:
    """Resumes a run. Raises InputError for one that was made elsewhere and is not trusted."""
    from ftlib.cluster import signature

    if not trust:
        signature.check(run)
    signature.sign(run)
    _conduct(experiment, run, resumed=True)


def _packed(experiment: Experiment) -> str:
    from ftlib.config.packs import why_not_packed

    assert experiment.sweep is not None
    if experiment.sweep.pack == "off":
        return "one by one (sweep.pack: off)"
    reason = why_not_packed(experiment)
    return f"one by one: {reason}" if reason else "in packs on one shared base"


def _import_libraries() -> None:
    import ftlib.adapters.build
    import ftlib.data  # noqa: F401


def _resolved(experiment: Experiment, data: Prepared) -> dict[str, Any]:
    import subprocess
    from dataclasses import asdict

    from ftlib.setting import versions

    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return {
        "experiment": experiment.to_dict(),
        "objective": experiment.objective,
        "data": {"hash": data.hash, **asdict(data.report)},
        "seed": experiment.train.seed,
        "versions": versions(),
        "git_commit": commit,
    }


def _conduct(
    experiment: Experiment,
    run: Run,
    data: Prepared | None = None,
    resumed: bool = False,
    hosts: list[Any] | None = None,
) -> None:
    """Runs or resumes, with the live view and the trackers beside it, and closes with the leaderboard."""
    from ftlib.errors import FtlibError
    from ftlib.leaderboard import to_table, write_leaderboard
    from ftlib.runs import BASE
    from ftlib.storage.mirror import mirrored, url_of
    from ftlib.sweep.sweep import fit, unfinished
    from ftlib.tracking import following
    from ftlib.watch import watching

    console = _console()
    data = data or _prepare(experiment, console)
    total = experiment.sweep.number_of_trials if experiment.sweep else 1
    place = url_of(run) or run.path
    console.print(f"run {place}", soft_wrap=True, highlight=False)

    def warn(sentence: str) -> None:
        console.print(f"warning: {sentence}", style="yellow", soft_wrap=True, highlight=False)

    def say(sentence: str) -> None:
        console.print(sentence, soft_wrap=True, highlight=False)

    interrupted = False
    with (
        mirrored(run, data.path, warn) as mirror,
        following(run, experiment.track, warn),
        watching(run, total, console),
    ):
        try:
            fit(experiment, run, data, resume=resumed, first=hosts, say=say)
        except KeyboardInterrupt:
            interrupted = True
        mirror()
        board = write_leaderboard(run)
    print_table(to_table(board, width=_width()))
    base = run.trial(BASE).status
    if base["state"] == "failed":
        warn(f"the untuned base could not be evaluated, so nothing is compared with it: {base['reason']}")
    begun = unfinished(run)  # a sweep whose time is over has none: Tune ends what is running
    left = total + run.added - len(run.trials()) + len(begun)
    timed = experiment.sweep is not None and experiment.sweep.time_budget_s
    over = [event["why"] for event in run.events() if event["event"] == "budget_over"]
    out_of_time = (timed or over) and not (begun or interrupted)
    if left and not out_of_time:
        click.secho(f"interrupted with {left} trials to go; to go on:", fg="yellow")
        click.echo(f"  ftlib resume {place}")
        sys.exit(130)
    failed = [row for row in board.rows if row.state == "failed"]
    for row in failed:
        click.secho(f"trial {row.trial} failed: {row.reason}", fg="red", err=True)
    if board.best is None and left:
        why = over[-1] if over else "sweep.time_budget_s was over"
        raise FtlibError(f"{why} before a trial was evaluated: raise it.")
    if board.best is None:
        raise FtlibError(f"all {len(failed)} trials failed: see {run.path}/trials/*/error.txt.")
    if over:
        click.secho(f"the sweep ended early: {over[-1]}", fg="yellow")
    if board.cost is not None:
        click.echo(f"cost: {board.cost:.4g} in all, {board.best.cost or 0.0:.4g} of it the winner's")
    click.echo("promote the winner:")
    click.echo(f"  ftlib promote {place} {board.best.trial} --as {experiment.name}")


def _console() -> Console:
    from rich.console import Console

    return Console()


def print_table(table: Table) -> None:
    """Into a pipe or a file a table goes whole; on a terminal it is as wide as that."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _width() -> int | None:
    console = _console()
    return console.width if console.is_terminal else None


def quiet_libraries() -> None:
    """The libraries' banners, progress bars and warnings are for developers; errors still come through."""
    import warnings

    warnings.filterwarnings("ignore")
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DATASETS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_DEDUP_LOGS": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "PYTHONWARNINGS": "ignore",
        "BITSANDBYTES_NOWELCOME": "1",
    }.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    program()
