"""Gates: questions put to a challenger. Each is a frozen config of `project.yaml` whose `judge` gives a verdict.

A new gate is a class in one of these files (`answers`: the challenger's answers alone; `comparison`: against others; `serving`: the
real serving process; `inputs`: what it was made of; `plan`: what may change by itself), a member of `Gate`, and where every project
should be asked it an entry of `ALL` and of the kinds' `gates`; what it must look at is a field of `Evidence`.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from tasks.ml.gates.answers import Calibration, Plausible, Sound
from tasks.ml.gates.comparison import Baselines, Champion, TrustedSet
from tasks.ml.gates.envelope import Change, ChangePlan, Envelope
from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.facts import Made, Rehearsed
from tasks.ml.gates.inputs import Inputs
from tasks.ml.gates.plan import WithinPlan
from tasks.ml.gates.serving import Parity, Serving
from tasks.ml.gates.verdict import Verdict, outcome

__all__ = [
    "ALL",
    "Baselines",
    "Calibration",
    "Champion",
    "Change",
    "ChangePlan",
    "Envelope",
    "Evidence",
    "Gate",
    "Inputs",
    "Made",
    "Parity",
    "Plausible",
    "Rehearsed",
    "Serving",
    "Sound",
    "TrustedSet",
    "Verdict",
    "WithinPlan",
    "judge",
    "outcome",
]

Gate = Annotated[
    Sound | Baselines | Champion | TrustedSet | Calibration | Plausible | Serving | Parity | Inputs | WithinPlan,
    Field(discriminator="kind"),
]
ALL: tuple[Gate, ...] = (
    Sound(), Baselines(), Champion(), TrustedSet(), Calibration(), Plausible(), Serving(), Parity(), Inputs(), WithinPlan(),
)  # fmt: skip


def judge(gates: tuple[Gate, ...], evidence: Evidence) -> list[Verdict]:
    """Every gate's verdict, in order. Answers that are no probabilities are judged by `sound` alone: no metric is defined on them."""
    soundness = Sound().judge(evidence)
    if not soundness.passed and not np.isfinite(evidence.challenger).all():
        return [
            soundness,
            *(
                Verdict(gate=gate.kind, passed=False, reason="not judged: some answers are no probabilities")
                for gate in gates
                if gate.kind != "sound"
            ),
        ]
    return [gate.judge(evidence) for gate in gates]
