"""Commands about the checkout: preparing it, and browsing its runs."""

from typing import Annotated

import typer


def setup() -> None:
    """Prepare this checkout: the charts of `dvc plots` work without a network (make does this by itself)."""
    from pulmo.base import paths
    from pulmo.base.files import write_bytes
    from pulmo.experiments.dvc import Dvc
    from pulmo.reporting.vega import plots_page

    root = paths.project_root()
    write_bytes(root / ".dvc/plots.html", plots_page().encode())
    Dvc(root).run("config", "--local", "plots.html_template", "plots.html")
    print("`dvc plots` takes its scripts from .dvc/plots.html")


def ui(
    port: Annotated[int, typer.Option(help="port of MLflow's page on this machine")] = 5000,
    browser: Annotated[bool, typer.Option(help="open the page where there is a display")] = True,
) -> None:
    """Browse the runs in MLflow, from any folder of the project: the table of runs, the best on validation first."""
    import signal
    import webbrowser
    from urllib.parse import urlsplit

    from pulmo.base import paths
    from pulmo.base.addresses import show_address
    from pulmo.base.process import end_by_exception
    from pulmo.tracking.page import address, has_display, serve_page
    from pulmo.tracking.store import open_store

    store = open_store(paths.project_root())
    if store.uri.startswith("http"):
        path = urlsplit(store.uri).path.rstrip("/")
        print(address(store, show_address(store.uri) + ("" if "@" in path else path)))
        return
    end_by_exception(signal.SIGTERM, signal.SIGHUP)  # the server outlives no closed terminal
    with serve_page(store, port) as (server, process):
        print(f"\nruns, the best on validation first:  {address(store, server)}\nCtrl-C ends the page", flush=True)
        if browser and has_display():
            webbrowser.open(address(store, server))
        process.wait()
