"""Gates against models that must not pass: worse, equal, broken, poisoned, and lucky after many tries."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.ml.gates import ALL, Champion, Evidence, TrustedSet, judge, outcome, spent
from tasks.ml.kinds import Anomaly, Binary, Kind, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost, Metric
from tests.ml.test_uncertain import CASES, answered

KINDS: dict[str, Kind] = {
    "binary": Binary("y", positive=True, labels=("no", "yes"), cost=Cost()),
    "multiclass": Multiclass("y", ("a", "b", "c", "d")),
    "regression": Regression("y"),
    "anomaly": Anomaly(0.2),
    "recommendation": Recommendation("item", "user", k=5),
}
N = 1200


def number(value: float | None) -> float:
    """A number that must be there."""
    assert value is not None
    return value


def shown(kind: str, metric: Metric, y: np.ndarray, challenger: np.ndarray, champion: np.ndarray) -> Evidence:
    """The evidence on rows that neither has seen."""
    task = KINDS[kind]
    operates = task.operate(y, champion)
    return Evidence(
        y=y, challenger=challenger, baselines={"mixed": np.random.default_rng(0).permutation(champion)}, metric=metric, seed=1, kind=task,
        champion=champion, unseen_by_champion=np.ones(len(y), dtype=bool), operates=operates, operated=operates, times=np.arange(len(y)),
        resamples=200,
    )  # fmt: skip


def a_worse_challenger_never_passes(kind: str, metric: Metric, seeds: range) -> None:
    """Whatever noise made it worse, the verdict on the champion is against it, and for the better one the other way round."""
    for seed in seeds:
        y, good, worse = answered(kind, N, seed, noise=0.4 + 0.2 * (seed % 5))
        assert not Champion().judge(shown(kind, metric, y, worse, good)).passed
        assert outcome(judge(ALL, shown(kind, metric, y, worse, good))) == "refused"
        better = Champion().judge(shown(kind, metric, y, good, worse))
        assert number(better.value) > 0


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_o_15_a_worse_challenger_never_passes(kind, name):
    """For every metric of every kind, through every gate."""
    a_worse_challenger_never_passes(kind, METRICS[name], range(5))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_o_15_a_metric_with_the_wrong_direction_is_found(kind, name):
    """Mutation: with the sign of one metric turned round the check above fails; so it can."""
    turned = replace(METRICS[name], greater_is_better=not METRICS[name].greater_is_better)
    with pytest.raises(AssertionError):
        a_worse_challenger_never_passes(kind, turned, range(1))


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("refresh", [None, 0.05])
def test_o_15_a_tie_keeps_the_champion(kind, name, refresh):
    """The champion's own answers are refused, with a margin for refreshes as well; the verdict says tie."""
    y, good, _ = answered(kind, N, 0)
    evidence = replace(shown(kind, METRICS[name], y, good, good.copy()), is_refresh=True)
    verdict = Champion(refresh_margin=refresh).judge(evidence)
    assert not verdict.passed
    assert verdict.value == 0
    assert verdict.reason.startswith("a tie keeps the champion")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_o_15_an_answer_that_is_no_number_is_refused(kind, name, wrong):
    """One NaN or infinity in a better challenger, and no gate lets it through."""
    y, good, worse = answered(kind, N, 0)
    broken = good.copy()
    broken[7] = wrong
    verdicts = judge(ALL, shown(kind, METRICS[name], y, broken, worse))
    assert outcome(verdicts) == "refused"
    assert len(verdicts) == len(ALL)


@pytest.mark.parametrize("made", [str, object, bool], ids=["texts", "objects", "bools"])
def test_o_15_answers_of_the_wrong_type_are_refused(made):
    """They are named, and no metric is asked."""
    y, good, worse = answered("binary", N, 0)
    verdicts = judge(ALL, shown("binary", METRICS["roc_auc"], y, good.astype(made), worse))
    assert "wanted numbers" in verdicts[0].reason
    assert not any(verdict.passed for verdict in verdicts)


def test_o_15_answers_of_the_wrong_form_are_refused():
    """A column for each class where one number is wanted."""
    y, good, worse = answered("binary", N, 0)
    verdicts = judge(ALL, shown("binary", METRICS["roc_auc"], y, np.stack([1 - good, good], axis=1), worse))
    assert "have the form (1200, 2); wanted (1200,)" in verdicts[0].reason


def test_o_15_a_metric_that_is_nan_is_no_pass():
    """Where the newest rows have one class, ROC AUC does not exist: neither champion nor baselines are beaten."""
    _, good, worse = answered("binary", N, 0)
    verdicts = judge(ALL, shown("binary", METRICS["roc_auc"], np.zeros(N, dtype=int), good, worse))
    assert {"champion", "baselines"} <= {verdict.gate for verdict in verdicts if not verdict.passed}


@pytest.mark.parametrize("attack", ["inverted", "segment", "repeated"])
def test_i_22_what_a_poisoned_batch_calls_better_the_trusted_set_does_not(attack):
    """The newest rows were bent and call the bent model better; the trusted rows call it worse: never passed, at most held."""
    y, good, _ = answered("binary", N, 0)
    forced = np.arange(N) % 4 == 0
    bent = {
        "inverted": (1 - y, 1 - good),
        "segment": (np.where(forced, 1, y), np.where(forced, 0.9 + 0.1 * good, good)),
        "repeated": (np.where(forced, 1 - y, y), np.where(forced, 1 - good, good)),
    }
    newest, model = bent[attack]
    times = np.where(forced, 100, 1) if attack == "repeated" else np.ones(N, dtype=int)
    at = np.repeat(np.arange(N), times)[: 10 * N]
    recent = shown("binary", METRICS["roc_auc"], newest[at], model[at], good[at])
    assert number(Champion().judge(recent).value) > 0
    verdicts = judge(
        ALL, replace(recent, trusted=shown("binary", METRICS["roc_auc"], y, np.where(forced, model, good), good))
    )
    assert next(verdict for verdict in verdicts if verdict.gate == "trusted").hold
    assert outcome(verdicts) in {"held", "refused"}


# -- lucky after many tries -------------------------------------------------------------------------------------------
def promotions(metric: str, kind: str, sequences: int, looks: int, *, spends: bool, n: int = 300) -> int:
    """In how many sequences of retrains that improve nothing any challenger is let through."""
    found = 0
    for sequence in range(sequences):
        for look in range(looks):
            y, champion, challenger = equals(kind, n, 1000 * sequence + look)
            evidence = replace(shown(kind, METRICS[metric], y, challenger, champion), resamples=0)
            verdict = Champion(log_loss_slack=9).judge(replace(evidence, looks=look if spends else 0))
            if verdict.passed:
                found += 1
                break
    return found


def equals(kind: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What came true, and answers of two models that are equally good: each with noise of its own."""
    y = answered(kind, n, seed)[0]
    one, two = (np.random.default_rng([seed, model]).normal(size=n) for model in (1, 2))
    if kind == "regression":
        return y, y + 0.3 * one, y + 0.3 * two
    return y, *(1 / (1 + np.exp(1.5 - 1.5 * y - 1.2 * noise)) for noise in (one, two))


def within(found: int, sequences: int, alpha: float) -> bool:
    """Whether so many false promotions are no sign of more than `alpha`."""
    return binomtest(found, sequences, alpha, alternative="greater").pvalue > 0.01


def test_m_02_retrains_that_improve_nothing_promote_no_more_often_than_they_may():
    """Over eight looks at one champion together: within the binomial interval of 5 %; without spending it is above."""
    careful, careless = (promotions("mae", "regression", 200, 8, spends=spends) for spends in (True, False))
    assert within(careful, 200, 0.05)
    assert not within(careless, 200, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "metric"), [("binary", "roc_auc"), ("binary", "average_precision"), ("binary", "log_loss"), ("binary", "brier"), ("regression", "rmse"), ("regression", "r2")]
)  # fmt: skip
def test_m_02_the_error_is_kept_for_every_sort_of_metric(kind, metric):
    """A thousand sequences of twelve looks each."""
    assert within(promotions(metric, kind, 1000, 12, spends=True), 1000, 0.05)


def test_all_looks_together_spend_no_more_than_the_error():
    """However many there are; and the first still has most of it."""
    parts = [spent(0.05, look) for look in range(1, 10_000)]
    assert sum(parts) < 0.05
    assert parts[0] > 0.03
    assert parts == sorted(parts, reverse=True)


def test_a_later_look_needs_more():
    """The same gain that passes at the first look is not enough at the fiftieth; the verdict tells the error and the power it had."""
    y, good, worse = answered("regression", N, 0)
    near = worse + 0.85 * (good - worse)
    evidence = shown("regression", METRICS["mae"], y, good, near)
    first, late = (Champion().judge(replace(evidence, looks=looks)) for looks in (0, 49))
    assert first.alpha == pytest.approx(0.0304, abs=1e-4)
    assert late.alpha < first.alpha
    assert number(late.power) > number(first.power)
    assert number(late.low) < number(first.low)
    assert "look 50 at this champion" in late.reason


def test_a_refresh_may_be_a_little_worse_where_the_project_says_so():
    """Of the champion's recipe non-inferior is enough; of another recipe it must be better, and without a margin always."""
    y, good, worse = answered("regression", N, 0)
    near = good + 0.02 * (worse - good)
    evidence = shown("regression", METRICS["mae"], y, near, good)
    assert Champion(refresh_margin=0.05).judge(replace(evidence, is_refresh=True)).passed
    assert not Champion(refresh_margin=0.05).judge(evidence).passed
    assert not Champion().judge(replace(evidence, is_refresh=True)).passed
    assert (
        not Champion(refresh_margin=0.05)
        .judge(replace(shown("regression", METRICS["mae"], y, worse + (worse - good), good), is_refresh=True))
        .passed
    )


def test_trusted_rows_do_not_spend():
    """The trusted set refuses for what is surely worse: at its full error, at every look."""
    y, good, worse = answered("binary", N, 0)
    evidence = shown("binary", METRICS["roc_auc"], y, good, worse)
    held = TrustedSet().judge(replace(evidence, looks=99, trusted=shown("binary", METRICS["roc_auc"], y, worse, good)))
    assert held.hold
