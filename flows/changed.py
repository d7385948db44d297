"""Changed: projects whose files were changed since their gates were proven; each change starts one proof. The inbox's process looks."""

import logging

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores.journal import Journal

LOG = logging.getLogger("keepfit.changed")


class Changed:
    """Watches every project's files."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seen: dict[str, str] = {}

    def look(self) -> None:
        """Starts a proof of every project that owes one."""
        for project in self.owed():
            try:
                plan(project, self.seen[project])
            except ObjectNotFound:
                LOG.warning("%s was changed, but 'prove/%s' is not deployed yet", project, project)
                del self.seen[project]

    def owed(self) -> list[str]:
        """Projects with a champion whose files are others than at the last look and at the newest proof; each is named once."""
        owed = []
        for project in self.settings.project_names():
            files = self.settings.declared(project)
            if files == self.seen.get(project):
                continue
            self.seen[project] = files
            journal = Journal(self.settings.journal())
            proof = journal.proof(project)
            if journal.champion(project) and (proof is None or proof["files"] != files) and self._loads(project):
                owed.append(project)
        return owed

    def _loads(self, project: str) -> bool:
        """Whether it can be proven at all; somebody may be writing."""
        try:
            Project.named(project, self.settings)
        except ProjectError as error:
            LOG.warning("%s", error)
            return False
        return True


def plan(project: str, files: str) -> None:
    """One run of `prove/<project>` for each state of the project's files.

    Raises:
        ObjectNotFound: the project is not deployed.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"prove/{project}").id
        client.create_flow_run_from_deployment(
            deployment, parameters={"project": project}, idempotency_key=f"prove {project} {files}"
        )
    LOG.info("%s was changed: its gates are proven again", project)
