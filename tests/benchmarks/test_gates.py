"""How long all gates take on a large holdout: 100,000 rows, champion against challenger, 2,000 resamples asked for.

`python -m pytest -q -s -m slow tests/benchmarks/test_gates.py` prints the CPU-seconds of every gate; one thread does all of it, so that they are what an idle machine takes.
What the serving process says of the challenger is there already, as it is in a training.
"""

import time

import numpy as np
import pandas as pd
import pytest

from tasks.ml.gates import ALL, Evidence, Fairness, Gate, Made, Rehearsed, judge
from tasks.ml.kinds import Binary
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.slices import Slices

ROWS = 100_000
GATES: tuple[Gate, ...] = tuple(Fairness(columns=("town",)) if gate.kind == "fairness" else gate for gate in ALL)


def large(metric: str, rows: int = ROWS, seed: int = 0) -> Evidence:
    """A holdout with two numbers and two texts, whose champion is a noisier challenger, and a trusted set of a tenth."""
    rng = np.random.default_rng(seed)
    kind = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
    true = rng.beta(1, 9, rows)
    y = (rng.random(rows) < true).astype(int)
    champion = np.clip(0.8 * true + 0.2 * rng.beta(1, 9, rows), 0, 1)
    features = pd.DataFrame(
        {
            "a": true + rng.normal(scale=0.1, size=rows), "b": rng.normal(size=rows), "town": rng.choice(list("abcdefgh"), rows),
            "shop": pd.Series(rng.integers(0, 40, rows)).astype(str),
        }
    )  # fmt: skip
    return Evidence(
        y=y, challenger=true, baselines=kind.naive(y[: rows // 10], y), metric=METRICS[metric], seed=1, resamples=2000, champion=champion,
        unseen_by_champion=np.ones(rows, dtype=bool), kind=kind, operates={"threshold": 0.2}, features=features,
        types={"a": "float", "b": "float", "town": "text", "shop": "text"}, times=np.arange(rows), floor=METRICS[metric].of(y, champion),
        rehearsal=Rehearsed(p50=3, p95=5, requests=90), heard=true, decided=kind.decided(true, {"threshold": 0.2}), made=Made(snapshot="v1-0", lock="l", commit="c", code="d"),
        slices=Slices(columns=("a", "town", "shop")), trusted=large(metric, rows // 10, seed + 1) if rows == ROWS else None,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "log_loss", "brier"])
def test_all_gates_on_a_large_holdout(metric):
    """Every gate has its verdict; the challenger, which knows the truth, passes; how long that took is printed."""
    shown, seconds = large(metric), {}
    begun = time.process_time()
    verdicts = judge(GATES, shown)
    whole = time.process_time() - begun
    for gate in GATES:
        begun = time.process_time()
        gate.judge(shown)
        seconds[gate.kind] = time.process_time() - begun
    each = ", ".join(f"{name} {took:.2f}" for name, took in sorted(seconds.items(), key=lambda item: -item[1]) if took > 0.005)  # fmt: skip
    print(f"\n{metric}: all {len(GATES)} gates on {ROWS:,} rows in {whole:.2f} CPU-seconds ({each})")  # noqa: T201 -- a benchmark prints
    assert [verdict.gate for verdict in verdicts] == [gate.kind for gate in GATES]
    assert all(verdict.passed for verdict in verdicts), [verdict for verdict in verdicts if not verdict.passed]
