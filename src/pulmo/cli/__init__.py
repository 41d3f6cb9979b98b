"""NORMAL or PNEUMONIA from one chest X-ray: everything that is done with the pipeline beside `dvc repro`."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

import typer

from pulmo.base.errors import UserError, known_mistake
from pulmo.cli import answers, champions, checkout, listen, overview, publications, search, serve

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in (
    *(overview.summary, answers.predict, answers.evaluate, serve.serve, listen.listen, overview.compare),
    *(overview.experiments, overview.sync, overview.doctor),
    *(champions.promote, champions.history, search.sweep, checkout.setup, checkout.ui, checkout.deps),
):
    app.command()(command)
app.add_typer(publications.app, name="recipe")
app.add_typer(overview.queue, name="queue")


def main() -> None:
    """Run the command line; a mistake of the user is a message and a hint on stderr, and exit code 1."""
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except ModuleNotFoundError as error:
        if find_spec("dvc"):
            raise
        lacking = f"this command belongs to the pipeline, which is not installed here ({error.name} is missing)"
        cure = "pip install 'pulmo[pipeline]'"
        sys.exit(f"error: {UserError(lacking, cure)}")
    except Exception as error:
        if known := known_mistake(error) or _from_store(error):
            sys.exit(f"error: {known}")
        raise


def _refuse_empty(arguments: Sequence[str]) -> None:
    """UserError for an empty argument: it would mean the folder in which the command runs, or no token at all."""
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not argument or (name.startswith("--") and sign and not value):
            raise UserError(
                f"{name or 'an argument'} is empty",
                "a shell variable that is not set gives an empty one; write a value",
            )


def _from_store(error: Exception) -> UserError | None:
    """The error of an MLflow store that fails in the middle of a command; None for any other."""
    if "mlflow" not in sys.modules:
        return None
    from pulmo.base.paths import project_root
    from pulmo.tracking.store import from_mlflow

    return from_mlflow(error, project_root())
