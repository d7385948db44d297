"""Gates: questions put to a challenger. Each is a frozen config of `project.yaml` whose `judge` gives a verdict.

Which gate covers what:
- better than naive baselines: `baselines` · floors of metrics: `floors`
- not worse, or better, than the champion, with errors spent over retrains: `champion` on the newest rows, `trusted` on the others
- every group of rows: `slices` · protected groups: `fairness` · parts in time: `stability`
- calibration error, mean prediction against observed rate, log loss against what is promised: `calibration`
- which decisions flip, and where: `churn` · invariance, direction, minimum functionality: `behaviour`
- latency, size, memory: `serving` · what is served is what was judged: `parity` · inputs that can be had again: `inputs` · the signed
  change plan: `plan`
- NaN, infinite, constant, mistyped, misshaped answers: `sound`
- leakage: a column that tells the target ends the training before it (`leaks`, in prepare); what only shows in the answers, a
  metric that is too good to be true: `plausible`

A new gate is a class in one of these files (`answers`: the challenger's answers alone; `comparison`: against others; `parts`: parts
of the holdout; `serving`: the real serving process; `inputs`: what it was made of; `plan`: what may change by
itself), a member of `Gate`, and where every project should be asked it an entry of `ALL` and of the kinds' `gates`; what it must look
at is a field of `Evidence`.
"""

from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from tasks.ml.gates.answers import Behaviour, Calibration, Floors, Plausible, Sound, malformed
from tasks.ml.gates.comparison import Baselines, Champion, TrustedSet, spent
from tasks.ml.gates.envelope import Change, ChangePlan, Envelope
from tasks.ml.gates.evidence import Evidence, Served
from tasks.ml.gates.facts import Made, Rehearsed
from tasks.ml.gates.inputs import Inputs
from tasks.ml.gates.parts import Churn, EverySlice, Fairness, Stability
from tasks.ml.gates.plan import WithinPlan
from tasks.ml.gates.serving import Parity, Serving
from tasks.ml.gates.verdict import Verdict, outcome

__all__ = [
    "ALL",
    "Baselines",
    "Behaviour",
    "Calibration",
    "Champion",
    "Change",
    "ChangePlan",
    "Churn",
    "Envelope",
    "EverySlice",
    "Evidence",
    "Fairness",
    "Floors",
    "Gate",
    "Inputs",
    "Made",
    "Parity",
    "Plausible",
    "Rehearsed",
    "Served",
    "Serving",
    "Sound",
    "Stability",
    "TrustedSet",
    "Verdict",
    "WithinPlan",
    "configured",
    "judge",
    "outcome",
    "spent",
]

Asked = TypeVar("Asked", Fairness, Serving)
Gate = Annotated[
    Sound
    | Baselines
    | Floors
    | Champion
    | TrustedSet
    | Calibration
    | Plausible
    | EverySlice
    | Fairness
    | Stability
    | Churn
    | Behaviour
    | Serving
    | Parity
    | Inputs
    | WithinPlan,
    Field(discriminator="kind"),
]
ALL: tuple[Gate, ...] = (
    Sound(),
    Baselines(),
    Floors(),
    Champion(),
    TrustedSet(),
    Calibration(),
    Plausible(),
    EverySlice(),
    Fairness(),
    Stability(),
    Churn(),
    Behaviour(),
    Serving(),
    Parity(),
    Inputs(),
    WithinPlan(),
)


def configured(gates: tuple[Gate, ...], of: type[Asked]) -> Asked:
    """The gate of that class among these, or as it comes where it is not among them."""
    return next((gate for gate in gates if isinstance(gate, of)), of())


def judge(gates: tuple[Gate, ...], evidence: Evidence) -> list[Verdict]:
    """Every gate's verdict, in order. Answers that no metric is defined on are judged by `sound` alone, whether it is asked or not."""
    if malformed(evidence) or not np.isfinite(evidence.challenger).all():
        soundness = Sound().judge(evidence)
        return [
            soundness,
            *(
                Verdict(gate=gate.kind, passed=False, reason="not judged: some answers are no probabilities")
                for gate in gates
                if gate.kind != "sound"
            ),
        ]
    return [gate.judge(evidence) for gate in gates]
