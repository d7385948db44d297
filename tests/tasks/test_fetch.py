"""What a fetch does with files and marks, and how sources become a deployment; no server is asked."""

import datetime as dt
import logging
import threading
from pathlib import Path

import pytest
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Failed

from flows.deployments import declared
from tasks import fetch
from tasks.config.errors import ConflictError, ProjectError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.sources.delivery import Delivered, Left, Mark, Scheduled, SourceError, UnreachableError
from tasks.sources.listing import Listing
from tasks.stores.journal import Journal
from tests.samples import light_projects

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SOURCES = """
sources:
  - {kind: listing, name: drop, url: "file:///drop/*.csv", schedule: {cron: "*/5 * * * *", timezone: Europe/Berlin}}
  - {kind: query, name: orders, url_env: SHOP_URL, sql: "select * from orders where at > :mark", mark: at, start: 2024-01-01T00:00:00Z}
"""


@pytest.fixture
def told(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a thyroid project that declares two sources."""
    folder = light_projects(tmp_path / "projects")
    with (folder / "thyroid" / "project.yaml").open("a") as file:
        file.write(SOURCES)
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder))
    return Settings()


class Scripted(Scheduled, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """A source that does as it is told; it shows what a source owes: a name, and `fetch`."""

    name: str = "scripted"
    steps: tuple[Delivered | Left | Mark | Exception, ...] = ()

    def fetch(self, mark, into, now):  # noqa: ARG002 – it reads nothing
        """The next steps, or what is to be raised."""
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield step


def deliver(source, settings, warned=None):
    """One fetch at a fixed time."""
    said = [] if warned is None else warned
    return fetch.deliver("thyroid", source, settings, lambda: NOW, said.append)


@pytest.fixture
def drop(told: Settings, tmp_path: Path) -> Listing:
    """A folder with three files."""
    (tmp_path / "drop").mkdir()
    for number in range(3):
        (tmp_path / "drop" / f"{number}.csv").write_text(f"x\n{number}\n")
    return Listing(name="drop", url=f"file://{tmp_path}/drop/*.csv", settled_seconds=0)


def test_what_is_new_is_delivered_and_the_mark_moves(told, drop):
    """The numbers are those of the files in the inbox; a second fetch finds nothing and changes nothing."""
    fetched = deliver(drop, told)
    assert (fetched.state, fetched.files, fetched.bytes, fetched.left) == ("delivered", 3, 12, 0)
    assert len(list(told.inbox("thyroid").iterdir())) == 3
    mark = Journal(told.journal()).watermark("thyroid", "drop")
    again = deliver(drop, told)
    assert (again.state, again.reason) == ("nothing", "drop: 0 files delivered (0 bytes), 0 left")
    assert Journal(told.journal()).watermark("thyroid", "drop") == mark


def test_s_01_a_mark_is_kept_after_its_file_and_never_before(told, drop, monkeypatch):
    """S-01: whichever of the durable steps is the last one, the fetch after it brings what is missing."""
    move = Journal.move_watermark
    for last in range(1, 4):
        calls = []

        def dying(journal, *mark, calls=calls, last=last):
            calls.append(mark)
            if len(calls) == last:
                raise KeyboardInterrupt
            move(journal, *mark)

        for file in told.inbox("thyroid").glob("*"):
            file.unlink()
        source = drop.model_copy(update={"name": f"drop-{last}"})
        with monkeypatch.context() as kill:
            kill.setattr(Journal, "move_watermark", dying)
            with pytest.raises(KeyboardInterrupt):
                deliver(source, told)
        assert len(list(told.inbox("thyroid").iterdir())) == last
        assert deliver(source, told).files == 3 - last + 1
        assert sorted(path.read_text() for path in told.inbox("thyroid").iterdir()) == ["x\n0\n", "x\n1\n", "x\n2\n"]


def test_what_was_delivered_before_a_fault_counts(told):
    """The mark that came before an error is kept, and the error goes up to be retried."""
    source = Scripted(steps=(Delivered("a", 1), Mark("1"), UnreachableError("away")))
    with pytest.raises(UnreachableError, match="away"):
        deliver(source, told)
    assert Journal(told.journal()).watermark("thyroid", "scripted") == "1"


def test_i_25_what_was_left_is_warned_of_and_ends_the_fetch_well(told):
    """I-25: some came, some did not: completed, with the first twenty named and all counted."""
    warned: list[str] = []
    fetched = deliver(
        Scripted(steps=(*[Left(f"'{n}'", "is gone") for n in range(30)], Delivered("a", 1), Mark("1"))), told, warned
    )
    assert (fetched.state, fetched.files, fetched.left) == ("delivered", 1, 30)
    assert len(warned) == 20
    assert warned[0] == "thyroid: scripted: '0' is gone"


def test_nothing_but_faults_is_a_failure(told):
    """When not one object could be read somebody must look; objects that are merely gone are no fault."""
    with pytest.raises(UnreachableError, match="'a' cannot be read, and 1 more"):
        deliver(Scripted(steps=(Left("'a'", "cannot be read"), Left("'b'", "cannot be read"))), told)
    assert deliver(Scripted(steps=(Left("'a'", "is gone", fault=False),)), told).state == "nothing"


def test_o_07_of_two_fetches_at_once_one_gives_way(told):
    """O-07: the mark moves from where it was read; the one that comes second is refused with a reason, as a value."""
    journal = Journal(told.journal())

    class Raced(Scripted, frozen=True, extra="forbid"):
        def fetch(self, mark, into, now):  # noqa: ARG002 – it reads nothing
            journal.move_watermark("thyroid", self.name, mark, f"{mark} theirs", NOW)
            yield Delivered("a", 1)
            yield Mark("ours")

    for _ in range(2):
        fetched = deliver(Raced(), told)
        assert fetched.state == "refused"
        assert "at the same time" in fetched.reason
    assert journal.watermark("thyroid", "scripted") == "None theirs theirs"


def test_a_watermark_moves_only_from_where_it_stood(told):
    """Twenty threads move it at once, twice: exactly one succeeds each time."""
    journal = Journal(told.journal())
    for before, after in ((None, "1"), ("1", "2")):
        outcomes: list[object] = []
        gate = threading.Barrier(20)

        def move(before=before, after=after, outcomes=outcomes, gate=gate):
            gate.wait()
            try:
                outcomes.append(journal.move_watermark("p", "s", before, after, NOW))
            except ConflictError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=move) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(outcomes), outcomes.count(None)) == (20, 1)
        assert journal.watermark("p", "s") == after
    assert journal.watermark("p", "other") is None


def test_only_what_may_pass_is_tried_again():
    """A source that does not answer and a fault of the disk are retried; what somebody must change first is not."""
    may = {
        UnreachableError("away"): True,
        OSError("disk"): True,
        SourceError("no driver"): False,
        ProjectError("broken"): False,
    }
    for error, again in may.items():
        assert fetch._may_pass(fetch.fetch, None, Failed(data=error)) is again  # ty: ignore[invalid-argument-type]


def test_the_sources_of_a_project(told):
    """All, one, or a question for the right name."""
    assert fetch.chosen("thyroid", None) == ["drop", "orders"]
    assert fetch.chosen("thyroid", "orders") == ["orders"]
    with pytest.raises(SourceError, match=r"no source 'order'.*Did you mean 'orders'\?"):
        fetch.chosen("thyroid", "order")


def test_sources_change_no_recipe(told):
    """Where rows come from does not decide what is learned: a new source starts no training."""
    use = Project.named("thyroid")
    assert len(use.sources) == 2
    assert use.model_copy(update={"sources": ()}).digest == use.digest


def test_two_sources_of_one_name_are_refused(told):
    """Their marks would be one."""
    path = told.projects / "thyroid" / "project.yaml"
    path.write_text(path.read_text().replace("name: orders", "name: drop"))
    with pytest.raises(ProjectError, match="needs a name of its own"):
        Project.named("thyroid")


def test_only_a_project_with_sources_gets_the_deployment(told):
    """`fetch/<project>` runs each source on its own schedule and wall clock; one without a schedule runs by hand."""
    use = Project.named("thyroid")
    *_, last = declared(use)
    assert last.full_name == "fetch/thyroid"
    assert last.entrypoint == "flows.fetch.fetch"
    assert last.concurrency_limit == 1
    assert [(entry.slug, entry.schedule, entry.parameters) for entry in last.schedules or []] == [
        ("drop", CronSchedule(cron="*/5 * * * *", timezone="Europe/Berlin"), {"source": "drop"})
    ]
    assert set(last.parameters or {}) | {"source"} <= set(last._parameter_openapi_schema.properties)
    without = declared(use.model_copy(update={"sources": ()}))
    assert "fetch/thyroid" not in [deployment.full_name for deployment in without]


def test_o_20_no_secret_in_what_a_fetch_says(told, monkeypatch, caplog):
    """O-20: a database URL with a password that does not parse or connect appears in no message, log or result."""
    source = Project.named("thyroid").sources[1]
    for url in (
        "postgresql+psycopg://u:canary@127.0.0.1:9/x",
        "postgresql+psycopg://u:can/ary@127.0.0.1:canary/x",
        "canary",
    ):
        monkeypatch.setenv("SHOP_URL", url)
        with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as refused:
            deliver(source, told)
        assert "canary" not in f"{refused.value} {refused.value!r} {caplog.text}".lower()
