"""The commands of a cluster: submit, jobs, logs, stop, pull, and cluster itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftlib.cli import complete
from ftlib.driver.terminal import echo
from ftlib.run.layout import TUNE

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.remote.jobs import Cluster, Job

ADDRESS = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    default="http://127.0.0.1:8265",
    show_default=True,
    help="The cluster's dashboard.",
)


@click.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete.keys)
@click.option("--smoke", is_flag=True, help="Set what FILE's section smoke says: a minute on a CPU.")
@ADDRESS
@click.option(
    "--secret", "secrets", multiple=True, metavar="NAME", help="Give the job this variable of the environment."
)
@click.option("--follow", "-f", is_flag=True, help="Print what the job prints; Ctrl-C leaves it running.")
@click.option("--resume", "resumes", metavar="RUN", help="Go on with this run of the cluster instead of a new one.")
@click.option("--trust", is_flag=True, help="With --resume: also a run that another cluster, or person, has made.")
@click.option("--pip", is_flag=True, help="Let the job install our versions of the packages that decide its numbers.")
@click.option("--any-versions", is_flag=True, help="Run with the versions that the cluster has.")
def submit(
    file: str,
    overrides: tuple[str, ...],
    smoke: bool,
    address: str,
    secrets: tuple[str, ...],
    follow: bool,
    resumes: str | None,
    trust: bool,
    pip: bool,
    any_versions: bool,
) -> None:
    """Send FILE, its small local files and this ftlib to a cluster, and run it there. It goes on without us."""
    from ftlib.driver.load import as_written, load
    from ftlib.files.urls import is_url
    from ftlib.remote.parcel import LIMIT, make_parcel
    from ftlib.remote.sealed import from_environment
    from ftlib.run.directory import new_name

    values = from_environment(secrets)
    experiment = load(file, overrides, smoke, whole=True)
    values |= _of_study(experiment)
    parcel = make_parcel(experiment, as_written(file, overrides, smoke))
    there = _cluster(address)
    if there.is_open():
        _warn(f"{address} asks for no token: whoever reaches it can run any code there (docs/cluster.md).")
    if not is_url(experiment.storage):
        _warn("storage is no URL, so the run stays on the disk of the cluster's head: pull it before the cluster ends.")
    if address.startswith("http://") and not address.startswith(("http://127.", "http://localhost", "http://[::1]")):
        _warn(
            f"{address} is not encrypted, so the token can be read on the way: use a tunnel ('ftlib cluster "
            "dashboard')."
        )
    echo(f"sending {len(parcel.inputs)} inputs, {parcel.input_bytes / 2**20:.1f} of {LIMIT // 2**20} MiB")
    if resumes is not None:
        resumes = there.job(resumes).run
        job = f"{resumes}.r{sum(earlier.run == resumes for earlier in there.jobs())}"
    else:
        job = new_name(experiment.name)
    there.submit(
        parcel,
        job,
        experiment.storage,
        resumes=resumes,
        trust=trust,
        secrets=values,
        options=_options(pip, any_versions),
    )
    echo(f"job {job}")
    if follow:
        _follow(there, there.job(job))
        return
    echo(f"follow it:  ftlib logs -f {job} --address {address}")


def _of_study(experiment: Experiment) -> dict[str, str]:
    """The whole URL of the study's database. The job gets it sealed, like other secrets."""
    from ftlib.run import passwords

    url = getattr(experiment.sweep.search, "storage", None) if experiment.sweep else None
    return {passwords.VARIABLE: passwords.whole(url)} if url and passwords.whole(url) != url else {}


def _options(pip: bool, any_versions: bool) -> dict[str, Any]:
    from ftlib.run.context import versions

    pinned = [f"{name}=={version}" for name, version in versions().items() if name not in ("ftlib", "ray")]
    return {
        **({"pip": {"packages": pinned}} if pip else {}),
        **({"env_vars": {"FTLIB_ANY_VERSIONS": "1"}} if any_versions else {}),
    }


@click.command()
@ADDRESS
def jobs(address: str) -> None:
    """List the jobs that were submitted to a cluster."""
    from rich import box
    from rich.table import Table

    from ftlib.driver.terminal import print_table
    from ftlib.files.urls import is_url

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("job", "state", "started", "took", "storage"):
        table.add_column(heading, no_wrap=True)
    for job in _cluster(address).jobs():
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else ""
        took = f"{((job.ended or time.time()) - job.started) / 60:.1f} min" if job.started else ""
        table.add_row(job.id, job.state, began, took, job.storage if is_url(job.storage) else "the cluster's disk")
    if not table.row_count:
        echo(f"no job was submitted to {address}: 'ftlib submit FILE' does.")
        return
    print_table(table)


@click.command()
@click.argument("job")
@ADDRESS
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends; Ctrl-C leaves it running.")
def logs(job: str, address: str, follow: bool) -> None:
    """Print what JOB has printed."""
    there = _cluster(address)
    found = there.job(job)
    if follow:
        _follow(there, found)
    else:
        echo(there.logs(found.id), nl=False)


@click.command()
@click.argument("job")
@ADDRESS
def stop(job: str, address: str) -> None:
    """End JOB as a Ctrl-C would: what its trials have reached is kept, and can be resumed."""
    there = _cluster(address)
    found = there.job(job)
    if found.ended:
        echo(f"{found.id} has {found.state} already.")
        return
    there.stop(found.id)
    echo(f"stopped {found.id}; go on with it:  ftlib submit FILE --resume {found.run} --address {address}")


@click.command()
@click.argument("job")
@ADDRESS
@click.option("--to", "folder", default="runs", show_default=True, type=click.Path(path_type=Path))
@click.option("--weights", type=click.Choice(["all", "best", "none"]), default="all", show_default=True)
def pull(job: str, address: str, folder: Path, weights: str) -> None:
    """Bring the run of JOB, or of a URL, here: leaderboard, metrics, report, adapters or models. It can be running."""
    from ftlib.driver.terminal import print_table
    from ftlib.errors import InputError
    from ftlib.files.paths import below
    from ftlib.files.urls import is_url
    from ftlib.remote.parcel import code_alone
    from ftlib.run.archive import pull_run
    from ftlib.run.leaderboard import leaderboard
    from ftlib.run.leaderboard_text import to_table

    if is_url(job):
        name, source = job.rstrip("/").rpartition("/")[2], None
    else:
        source = _cluster(address)
        name = source.job(job).run
    target = below(folder.expanduser().absolute(), name, job)
    if (target / TUNE).exists():
        raise InputError(f"{target} is a run of this machine, not a pulled one: choose another --to.")
    if source is None:
        run = pull_run(job, target, weights)
    else:
        run = source.fetch(source.job(job), target, weights, code_alone())
    print_table(to_table(leaderboard(run)))
    echo(f"run {run.path}")


@click.group()
def cluster() -> None:
    """A cluster on AWS or Google Cloud, out of a file of Ray's launcher: docs/cluster.md.

    What Ray's own commands do as well is theirs: ray attach FILE, ray exec FILE 'ray status -v', ray rsync-down.
    """


CLUSTER_FILE = click.argument("file", type=click.Path(), default="cluster.yaml")


@cluster.command()
@CLUSTER_FILE
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def up(file: str, yes: bool) -> None:
    """Start the cluster of FILE, or bring it in line with FILE, with your token on it. Asks first: it costs."""
    from ftlib.remote.launcher import ClusterFile

    loaded = ClusterFile.load(file)
    least, most = loaded.hourly
    echo(f"{least:.2f} to {most:.2f} {loaded.currency} an hour, from now until 'ftlib cluster down {file}'")
    if not yes:
        click.confirm("start it?", abort=True)
    loaded.up(["--yes"])
    echo(f"reach it:  ftlib cluster dashboard {file}")


@cluster.command()
@CLUSTER_FILE
def status(file: str) -> None:
    """Nodes, what they hold, and what waits."""
    from ftlib.remote.launcher import ClusterFile

    ClusterFile.load(file).ray("exec", "RAY_AUTH_MODE=token ray status -v")


@cluster.command()
@CLUSTER_FILE
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def down(file: str, yes: bool) -> None:
    """End every node of FILE. Runs on their disks end with them: pull them first."""
    from ftlib.remote.launcher import ClusterFile

    ClusterFile.load(file).ray("down", *(["--yes"] if yes else []))


@cluster.command()
@CLUSTER_FILE
@click.option("--port", default=8265, show_default=True, help="Of this machine.")
def dashboard(file: str, port: int) -> None:
    """Hold a tunnel to the cluster's dashboard, which --address of other commands goes through, until Ctrl-C."""
    from ftlib.remote.launcher import ClusterFile

    loaded = ClusterFile.load(file)
    echo(f"http://127.0.0.1:{port} is the cluster's dashboard while this runs; it asks for the token.")
    loaded.ray("dashboard", "--port", str(port))


@cluster.command()
@CLUSTER_FILE
def price(file: str) -> None:
    """What an hour of FILE costs, by kind of node, at the least and at the most."""
    from rich import box
    from rich.table import Table

    from ftlib.driver.terminal import print_table
    from ftlib.remote.launcher import ClusterFile

    loaded = ClusterFile.load(file)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("node", "market", "an hour", "nodes", "at the least", "at the most"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("node", "market") else "right")
    for node in loaded.node_types:
        count = str(node.least) if node.least == node.most else f"{node.least}–{node.most}"
        amounts = [f"{number * node.price:.2f}" for number in (1, node.least, node.most)]
        table.add_row(node.name, "spot" if node.spot else "on demand", amounts[0], count, *amounts[1:])
    print_table(table)
    least, most = loaded.hourly
    bound = f"at most {loaded.tree['max_workers']} workers together"
    echo(f"{least:.2f} to {most:.2f} {loaded.currency} an hour ({bound}); {least * 24:.2f} a day while nothing runs")


def _follow(cluster: Cluster, job: Job) -> None:
    """Prints what the job prints, and exits with 0 where the job succeeded and with 1 where it failed."""
    try:
        state = cluster.follow(job.id, lambda text: echo(text, nl=False))
    except KeyboardInterrupt:
        echo(f"\n{job.id} goes on; follow it again with  ftlib logs -f {job.id} --address {cluster.address}")
        return
    echo(f"{job.id} {state}")
    if state != "succeeded":
        sys.exit(1)


def _cluster(address: str) -> Cluster:
    from ftlib.remote.jobs import Cluster

    return Cluster(address)


def _warn(sentence: str) -> None:
    echo(f"warning: {sentence}", fg="yellow", err=True)


COMMANDS = (submit, jobs, logs, stop, pull, cluster)
