"""The command that prepares a checkout."""


def setup() -> None:
    """Prepare this checkout: the charts of `dvc plots` work without a network (make does this by itself)."""
    from pulmo.base import paths
    from pulmo.base.files import write_bytes
    from pulmo.experiments.dvc import run_dvc
    from pulmo.reporting.vega import plots_page

    root = paths.project_root()
    write_bytes(root / ".dvc/plots.html", plots_page().encode())
    run_dvc(root, "config", "--local", "plots.html_template", "plots.html")
    print("`dvc plots` takes its scripts from .dvc/plots.html")
