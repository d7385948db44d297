"""Studies survive the process that searches: what was finished counts, what was under way is tried again."""

from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tasks.stores import studies

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``(group|multivariate)`` is an experimental feature")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database in a folder that is not there yet."""
    found = f"sqlite:///{tmp_path / 'state' / 'studies.db'}"
    studies.prepare(found)
    return found


def loss(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) ** 2


def tried(study: optuna.Study) -> list[float]:
    """The values of x in the order of the trials."""
    return [trial.params["x"] for trial in study.get_trials() if trial.state == TrialState.COMPLETE]


def killed_in_the_middle(url: str, finished: int = 3) -> float:
    """A search that was killed during its last trial; gives that trial's x."""
    first = studies.study(url, "thyroid", 7)
    first.optimize(loss, n_trials=finished)
    return first.ask().suggest_float("x", 0, 1)


def test_the_database_is_made_for_readers_beside_a_writer(url: str):
    """Preparing makes the folder and switches SQLite to WAL; doing it again changes nothing."""
    studies.prepare(url)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_a_server_needs_no_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """For a database elsewhere nothing is made here."""
    monkeypatch.chdir(tmp_path)
    studies.prepare("postgresql://user@nowhere/studies")
    assert list(tmp_path.iterdir()) == []


def test_finished_trials_are_kept(url: str):
    """A study of the same name is the same study, with every finished trial and its value."""
    first = studies.study(url, "thyroid", 7)
    first.optimize(loss, n_trials=3)
    again = studies.study(url, "thyroid", 7)
    assert tried(again) == tried(first)
    assert again.best_value == first.best_value
    assert len(again.trials) == 3


def test_another_name_is_another_study(url: str):
    """Two snapshots or two configurations never share trials."""
    studies.study(url, "thyroid", 7).optimize(loss, n_trials=2)
    assert studies.study(url, "flights", 7).trials == []


def test_a_trial_that_a_killed_run_left_behind_is_marked_failed(url: str):
    """Nobody works on a trial whose process is gone, so none is left running."""
    killed_in_the_middle(url)
    again = studies.study(url, "thyroid", 7)
    assert [trial.state for trial in again.trials[:4]] == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]


def test_a_trial_that_a_killed_run_left_behind_is_tried_next(url: str):
    """The parameters of the lost trial stand first in the queue, and once only, however often the study is opened."""
    x = killed_in_the_middle(url)
    studies.study(url, "thyroid", 7)
    again = studies.study(url, "thyroid", 7)
    assert [trial.state for trial in again.trials].count(TrialState.WAITING) == 1
    again.optimize(loss, n_trials=1)
    assert tried(again)[-1] == x
    assert [trial.state for trial in again.trials].count(TrialState.WAITING) == 0


@pytest.mark.parametrize("killed", ["enqueue_trial", "tell"])
def test_o_16_a_kill_while_a_lost_trial_is_queued_again_loses_none(
    url: str, monkeypatch: pytest.MonkeyPatch, killed: str
):
    """Before the one or the other write: it is tried again, once (O-16)."""
    x = killed_in_the_middle(url)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, killed, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            studies.study(url, "thyroid", 7)
    again = studies.study(url, "thyroid", 7)
    assert [trial.state for trial in again.trials].count(TrialState.WAITING) == 1
    assert [trial.state for trial in again.trials].count(TrialState.RUNNING) == 0
    again.optimize(loss, n_trials=2)
    assert [value == x for value in tried(again)[-2:]] == [True, False]


def test_a_queued_trial_that_was_lost_before_its_first_question_is_tried_next(url: str):
    """A start point that was taken from the queue when the kill came is not forgotten."""
    first = studies.study(url, "thyroid", 7)
    first.enqueue_trial({"x": 0.25})
    first.ask()
    again = studies.study(url, "thyroid", 7)
    again.optimize(loss, n_trials=1)
    assert tried(again) == [0.25]


def test_a_resumed_search_goes_on_instead_of_over_again(url: str):
    """With the same seed, the resumed search tries other points than the first run did."""
    first = studies.study(url, "thyroid", 7)
    first.optimize(loss, n_trials=3)
    again = studies.study(url, "thyroid", 7)
    again.optimize(loss, n_trials=3)
    assert len(set(tried(again))) == 6


def test_the_same_seed_searches_the_same_way(url: str):
    """Two new studies with one seed try the same points; another seed tries others."""
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        studies.study(url, name, seed).optimize(loss, n_trials=3)
    a, b, c = (tried(studies.study(url, name, 7)) for name in "abc")
    assert a == b
    assert set(a).isdisjoint(c)


def test_what_a_search_begins_with_is_queued_once_unless_it_failed(url: str):
    """What is queued, under way or complete is there; what failed is queued once more, and after a second time never."""
    found = studies.study(url, "thyroid", 7)

    def drawn() -> float:
        """What is under way now; what is queued is not queued twice."""
        for _ in range(2):
            studies.begin(found, [{"x": 0.25}, {"x": 0.5}])
        return found.ask().suggest_float("x", 0, 1)

    assert (drawn(), drawn()) == (0.25, 0.5)
    assert drawn() not in {0.25, 0.5}
    found.tell(0, state=TrialState.FAIL)
    found.tell(1, 0.1)
    assert drawn() == 0.25
    found.tell(3, state=TrialState.FAIL)
    assert drawn() not in {0.25, 0.5}
