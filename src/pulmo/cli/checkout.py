"""Commands about the checkout: preparing it, and browsing its runs."""

from typing import Annotated

import typer

from pulmo.base import paths
from pulmo.base.errors import UserError


def setup() -> None:
    """Prepare this checkout (make does this by itself): the charts of `dvc plots` work without a network, and
    experiments run aside even where its path has letters outside ASCII."""
    from pulmo.base.files import write_bytes
    from pulmo.experiments.aside import find_obstacle, name_cache
    from pulmo.experiments.dvc import Dvc
    from pulmo.reporting.vega import plots_page

    root = paths.require_project()
    write_bytes(root / ".dvc/plots.html", plots_page().encode())
    dvc = Dvc(root)
    dvc.run("config", "--local", "plots.html_template", "plots.html")
    print("`dvc plots` takes its scripts from .dvc/plots.html")
    if link := name_cache(dvc):
        print(f"DVC calls its cache {link}, because it can write no letters outside ASCII")
    if obstacle := find_obstacle(root):
        print(f"warning: {obstacle}; move the checkout to another path")


def ui(
    port: Annotated[int, typer.Option(help="port of MLflow's page on this machine")] = 5000,
    browser: Annotated[bool, typer.Option(help="open the page where there is a display")] = True,
) -> None:
    """Browse the runs in MLflow, from any folder of the project: the table of runs, the best on validation first."""
    import signal
    import webbrowser
    from urllib.parse import urlsplit

    from pulmo.base.addresses import show_address
    from pulmo.base.process import end_by_exception
    from pulmo.tracking.page import address, has_display, serve_page
    from pulmo.tracking.store import open_store

    store = open_store(paths.require_project())
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


def deps(
    write: Annotated[
        bool, typer.Option("--write", help="put them into dvc.yaml, and leave its other lines alone")
    ] = False,
) -> None:
    """Compare the code that the stages reach with the deps of dvc.yaml; exit code 1 where they differ."""
    from pulmo.experiments.code_deps import find_code_deps, read_code_deps, write_code_deps

    root = paths.require_project()
    differs = False
    for stage, declared in read_code_deps(root).items():
        reached = find_code_deps(root, stage)
        lines = [f"  + {dep}" for dep in reached if dep not in declared]
        lines += [f"  - {dep}" for dep in declared if dep not in reached]
        if declared != reached:
            differs = True
            print("\n".join([f"{stage}:", *(lines or ["  another order"])]))
    if not differs:
        print("dvc.yaml declares the code that each stage reaches")
    elif write:
        write_code_deps(root)
        print("->  dvc.yaml")
    else:
        raise UserError("dvc.yaml does not declare the code that the stages reach", "`pulmo deps --write` corrects it")
