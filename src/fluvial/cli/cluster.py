"""``fluvial up``, ``down`` and ``status``."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fluvial.cli.console import progress

if TYPE_CHECKING:
    from fluvial.cluster import ClusterSpec, LocalCluster


def register(app: typer.Typer) -> None:
    """Add the commands of the local cluster."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    brokers: Annotated[
        int | None, typer.Option(help="Kafka brokers: 1 or 3, 0 for none. \\[default: 1, or what is there]")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Cassandra nodes: 1 or 3, 0 for none. \\[default: 1, or what is there]")
    ] = None,
    registry: Annotated[
        bool | None, typer.Option("--registry/--no-registry", help="Also run a schema registry. \\[default: yes]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the data of the last run first.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and stop everything on Ctrl-C.")
    ] = False,
) -> None:
    """Start real Kafka, a schema registry and Cassandra on this machine.

    Everything is kept under `.fluvial/` here (or FLUVIAL_CLUSTER_DIR); every other command finds the servers by itself.
    The first run downloads about 250 MB and keeps them in a cache.

    Example: fluvial up --brokers 3 --nodes 3
    """
    from fluvial.cluster import LocalCluster
    from fluvial.settings import cluster_dir

    cluster = LocalCluster(
        cluster_dir(), _spec(LocalCluster(cluster_dir()).spec if not fresh else None, brokers, nodes, registry)
    )
    with progress() as report:
        if fresh:
            cluster.wipe()
        cluster.start(report)
    _print_addresses(cluster)
    if foreground:
        _stay(cluster)


def down(
    delete: Annotated[bool, typer.Option("--delete", help="Also delete all data.")] = False,
) -> None:
    """Stop the local cluster; its data stay for the next `fluvial up`.

    Example: fluvial down
    """
    from fluvial.cluster import LocalCluster
    from fluvial.settings import cluster_dir

    cluster = LocalCluster(cluster_dir())
    with progress() as report:
        stopped = cluster.stop(report)
    if delete:
        cluster.wipe()
    typer.echo(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing runs in {cluster.directory}.")


def status(
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="How to print it.")] = "text",
) -> None:
    """Show the servers, topics, lag of the consumer groups, and tables, of the local cluster or wherever settings lead.

    Exits 1 when something does not run or does not answer.

    Example: fluvial status
    """
    from fluvial.cli import status_view
    from fluvial.cluster import LocalCluster
    from fluvial.services.status import ask
    from fluvial.settings import cluster_dir, load_settings

    servers = LocalCluster(cluster_dir()).status()
    found = ask(load_settings())
    typer.echo(status_view.as_json(servers, found) if output == "json" else status_view.as_text(servers, found))
    if not found.ok or not all(s.running for s in servers):
        raise typer.Exit(1)


def _spec(held: "ClusterSpec | None", brokers: int | None, nodes: int | None, registry: bool | None) -> "ClusterSpec":
    from dataclasses import replace

    from fluvial.cluster import ClusterSpec

    spec = held or ClusterSpec()
    return replace(
        spec,
        brokers=spec.brokers if brokers is None else brokers,
        nodes=spec.nodes if nodes is None else nodes,
        registry=spec.registry if registry is None else registry,
    )


def _print_addresses(cluster: "LocalCluster") -> None:
    settings = cluster.settings
    spec = cluster.spec
    if spec.brokers:
        typer.echo(f"Kafka      {settings.kafka.brokers}")
    if spec.registry:
        typer.echo(f"Registry   {settings.registry.url}")
    if spec.nodes:
        typer.echo(f"Cassandra  {settings.cassandra.contact_points} port {settings.cassandra.port}")
    typer.echo(f"Data and logs are in {cluster.directory}. Next: fluvial init. Stop with: fluvial down")


def _stay(cluster: "LocalCluster") -> None:
    """Wait until Ctrl-C or SIGTERM, then stop; end with an error when a server ends by itself."""
    import signal
    import threading

    from fluvial.errors import ClusterError

    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    typer.echo("Ctrl-C stops everything.")
    died: list[str] = []
    while not died and not asked.wait(1):
        died = [s.name for s in cluster.status() if not s.running]
    with progress() as report:
        cluster.stop(report)
    if died:
        raise ClusterError(f"{', '.join(died)} ended by itself; stopped the others", hint=f"see {cluster.log(died[0])}")
