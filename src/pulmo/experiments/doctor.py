"""The doctor: every check for what keeps a checkout from working, each with its cure."""

from collections.abc import Callable, Iterator, Mapping

from pulmo.base.addresses import hide_secrets
from pulmo.base.errors import UserError
from pulmo.experiments.checks.checkout import check_environment, check_git, check_params, check_project, check_versions
from pulmo.experiments.checks.contents import check_contents
from pulmo.experiments.checks.finding import Finding
from pulmo.experiments.checks.machine import check_compute, check_disk
from pulmo.experiments.checks.outputs import check_cache, check_data, check_plots, check_results
from pulmo.experiments.checks.store import check_leftover, check_open_runs, check_store
from pulmo.experiments.project import Project

# The check that each builds on
_NEEDS = {"data": "git", "contents": "git", "results": "git", "cache": "git", "open runs": "store"}
Check = Callable[[Project], Finding]
CHECKS: dict[str, Check] = {
    "project": check_project,
    "git": check_git,
    "versions": check_versions,
    "environment": check_environment,
    "params": check_params,
    "data": check_data,
    "results": check_results,
    "cache": check_cache,
    "plots": check_plots,
    "mlruns": check_leftover,
    "store": check_store,
    "open runs": check_open_runs,
    "compute": check_compute,
    "disk": check_disk,
}
DEEP: dict[str, Check] = {"contents": check_contents}  # those that read every output


def examine(project: Project, checks: Mapping[str, Check] = CHECKS) -> Iterator[tuple[str, Finding]]:
    """Each check of a project by name, as it is done; a check that itself breaks is a finding too.

    What cannot be seen because an earlier check failed is left out.
    """
    failed: set[str] = set()
    for name, check in checks.items():
        if "project" in failed or _NEEDS.get(name) in failed:
            continue
        try:
            finding = check(project)
        except UserError as error:
            finding = Finding("error", error.message, error.hint)
        except (ValueError, OSError) as error:  # a damaged file that no check foresees
            finding = Finding("error", hide_secrets(" ".join(str(error).split())))
        if finding.state == "error":
            failed.add(name)
        yield name, finding
