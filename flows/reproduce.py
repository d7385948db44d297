"""A registered version is made again from its snapshot, recipe, seed and threads, and compared with what it was."""

from typing import Any

from prefect import flow

from tasks.reproduce import judge, rebuild, recall


@flow(name="reproduce", flow_run_name="{project}: version {version} again")
def reproduce(project: str, version: int, as_recorded: bool = False) -> dict[str, Any]:
    """Makes a version again and says EXACT, NUMERIC, or DIFFERENT with the first step that diverges.

    It always runs where it is asked for, because that is the installation which is put to the proof; its result is not
    stored, because it may name a row.

    Args:
        project: The project.
        version: The registered version, as MLflow counts.
        as_recorded: With the configuration of then in place of today's project.yaml.
    """
    asked = recall(project, version, as_recorded=as_recorded)
    return judge(asked, rebuild(asked))
