"""Pages: markdown that people read in Prefect and MLflow. Whatever came from outside is escaped here."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from tasks.ml.contract import NUMERIC, Contract
from tasks.ml.gates import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ml.proof import Proof

ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
MARKS = re.compile(r"([\\`*|\[\]~$])|(?<!\w)_|_(?!\w)")
BLOCK = re.compile(r"^(\d*)([#+=.)-])")  # what opens a heading, a list or a rule at the beginning of a line
NONE = "–"
BAR = 24  # characters of a progress bar
STATED = 0.05  # how often an end of an interval is wrong, where nothing else is said
FEW = 5  # rows; a text that fewer have may be a person


def escaped(text: object, width: int = 500) -> str:
    r"""One line of plain text that neither opens a table cell nor markup, links or HTML; cut after `width` characters.

    >>> escaped("a|b\n<script> [x](y) snake_case _it_")
    'a\\|b &lt;script&gt; \\[x\\](y) snake_case \\_it\\_'
    """
    words = " ".join(str(text).split())
    plain = "".join(character for character in words if character.isprintable())
    short = plain if len(plain) <= width else plain[: width - 1].rstrip() + "…"
    unlinked = MARKS.sub(lambda found: "\\" + found[0], short).translate(ENTITIES)
    return unlinked.replace("://", ":\u200b//")  # a bare address would become a link


def sentence(text: object) -> str:
    """Escaped text that may begin a paragraph: a capital, a full stop, no heading, no list; empty stays empty."""
    plain = _capital(escaped(text))
    if not plain:
        return ""
    return BLOCK.sub(r"\1\\\2", plain if plain[-1] in ".!?…" else f"{plain}.")


def code(text: object) -> str:
    """The text in code letters; characters that would end the span or the cell are left out."""
    plain = "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable() and letter not in "`|")
    return f"`{plain}`" if plain.strip() else NONE


def number(value: float | None, digits: int = 4) -> str:
    """`0.9812`; a dash where there is none, the plain word where it is no finite number."""
    if value is None:
        return NONE
    if not isfinite(value):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.{digits}f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table of cells that are markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


VERDICT = (
    "gate",
    "passed",
    "before",
    "after",
    "value",
    "interval",
    "bar",
    "power",
    "reason",
)  # the columns of a table of verdicts


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    """One verdict as a row under `VERDICT`, in plain text.

    The interval's ends are wrong one time in twenty each unless it says otherwise; power is the distance of value and bar that
    is seen four times in five.
    """
    interval = NONE
    if verdict.low is not None and verdict.high is not None:
        sure = "" if verdict.alpha == STATED else f" (α {verdict.alpha:.2g})"
        interval = f"{number(verdict.low)} … {number(verdict.high)}{sure}"
    bar = NONE if verdict.bar is None else f"{'>' if verdict.wanted == 'above' else '≤'} {number(verdict.bar)}"
    numbers = (number(value) for value in (verdict.before, verdict.after, verdict.value))
    answer = "yes" if verdict.passed else "a person decides" if verdict.hold else "no"
    return verdict.gate, answer, *numbers, interval, bar, number(verdict.power), verdict.reason


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Gate, answer and numbers, one row a verdict; an answer against the challenger is bold."""
    return table(VERDICT, (_verdict_row(verdict) for verdict in verdicts)) if verdicts else "No gate was asked."


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    gate, answer, *numbers, reason = verdict_cells(verdict)
    return escaped(gate), answer if verdict.passed else f"**{answer}**", *map(escaped, numbers), escaped(reason)


def embedded(png: bytes, alt: str) -> str:
    """A picture inside the markdown itself; both of Prefect's pages draw it."""
    return f"![{escaped(alt)}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def decision(
    state: str,
    reason: str,
    verdicts: Sequence[Verdict],
    *,
    project: str = "",
    version: int | None = None,
    picture: bytes | None = None,
    links: Mapping[str, str] | None = None,
    move: str = "",
) -> str:
    """What became of a challenger and why: headline, verdicts, picture, links.

    Args:
        state: what happened, one word: `released`, `refused`, `waiting`.
        reason: why, a sentence.
        verdicts: every gate's answer.
        project: whose challenger it was.
        version: its number; None where it was not registered.
        picture: PNG bytes, from `pictures.report`.
        links: addresses by name; they come from the settings, never from data.
        move: the command that a person says next.
    """
    name = f"{escaped(project)} version {version}" if version is not None else escaped(project)
    headline = f"## {_capital(escaped(state))}{f': {name}' if name else ''}"
    failed = sum(not verdict.passed for verdict in verdicts)
    count = f"{len(verdicts) - failed} of {len(verdicts)} gates passed." if verdicts else ""
    parts = [headline, " ".join(filter(None, [sentence(reason), count])), verdict_table(verdicts)]
    parts += [f"A person decides: {code(move)}, or `reject` in place of `approve`."] if move else []
    parts += [embedded(picture, f"Report of {project}")] if picture is not None else []
    parts += [" · ".join(f"[{escaped(text)}]({url})" for text, url in (links or {}).items())]
    return "\n\n".join(filter(None, parts)) + "\n"


def proof(found: "Proof") -> str:
    """What came of a proof: headline, the good model, a row for each bad one."""
    headline = f"## {'Proven' if found.ok else 'Not proven'}: {escaped(found.project)}"
    headings = ("as it must be", "bad challenger", "to be stopped by", "stopped by", "because")
    rows = [
        (
            "yes" if put.ok else "**NO**",
            *map(escaped, (put.name, put.expected, ", ".join(put.killed_by) or NONE, put.reason)),
        )
        for put in found.challengers
    ]
    good = found.good and f"The good model: {escaped(found.good)}."
    return (
        "\n\n".join(filter(None, [headline, sentence(found.reason), good, table(headings, rows) if rows else ""]))
        + "\n"
    )


def contract_table(
    contract: Contract, observed: Callable[[str], "pd.Series | None"] = lambda _name: None
) -> list[dict[str, Any]]:
    """One row a column for Prefect's table artifact: the rules, and what the last snapshot held.

    Args:
        contract: what a row may be.
        observed: gives a column of the last snapshot by its name; the last cells of one that it does not know stay empty.
    """
    rows = []
    for description in contract.describe():
        name = description["column"]
        column = observed(name)
        rows.append(
            {
                "column": escaped(name),
                "role": description["role"],
                "type": description["type"],
                "may be": _rules(description),
                "missing": NONE if column is None or column.empty else f"{100 * float(column.isna().mean()):.1f} %",
                "holds": NONE if column is None else _contents(column, description["type"], description["role"]),
                "about": escaped(description["about"]),
            }
        )
    return rows


def progress(
    trials: Sequence[Mapping[str, Any]],
    budget_seconds: float,
    elapsed: float,
    total: int,
    label: str = "loss",
    *,
    greater_is_better: bool = False,
) -> str:
    """A running search: how far, the best so far, and the five best trials.

    Args:
        trials: each with `number`, `value`, `state`, `family`, `params`, as for `pictures.search`.
        budget_seconds: seconds that the search may take.
        elapsed: seconds that it took.
        total: at most so many trials; the search ends at whichever comes first.
        label: what the value is.
        greater_is_better: the study's direction.
    """
    ended = sum(trial.get("state") != "running" for trial in trials)
    pruned = sum(trial.get("state") == "pruned" for trial in trials)
    share = min(1.0, max(ended / total if total else 1.0, elapsed / budget_seconds if budget_seconds else 1.0))
    filled = round(share * BAR)
    head = f"`{'█' * filled}{'░' * (BAR - filled)}` {100 * share:.0f} %"
    spent = f"{ended} of at most {total} trials ({pruned} pruned), {elapsed:.0f} of {budget_seconds:.0f} seconds"
    return f"{head} · {spent}\n\n{_best_trials(trials, label, greater_is_better=greater_is_better)}\n"


def parameters(params: Mapping[str, Any]) -> str:
    """`C=1.5, max_iter=100`, numbers with four digits, without the family before each name."""
    named = {str(name).rsplit(".", 1)[-1]: value for name, value in params.items() if name not in {"family", "kind"}}
    return ", ".join(f"{escaped(name)}={_parameter(value)}" for name, value in named.items()) or NONE


def _best_trials(trials: Sequence[Mapping[str, Any]], label: str, *, greater_is_better: bool) -> str:
    known = [t for t in trials if t.get("state") == "complete" and t.get("value") is not None and isfinite(t["value"])]
    if not known:
        return "No trial has finished yet."
    ranked = sorted(known, key=lambda trial: -trial["value"] if greater_is_better else trial["value"])[:5]
    best = ranked[0]
    rows = [
        (
            str(trial["number"]),
            f"{trial['value']:.4f}",
            escaped(trial.get("family", "")) or NONE,
            parameters(trial.get("params") or {}),
        )
        for trial in ranked
    ]
    listed = table(("trial", escaped(label), "family", "parameters"), rows)
    return f"**Best {escaped(label)} so far: {best['value']:.4f}**, by trial {best['number']}.\n\n{listed}"


def _rules(description: Mapping[str, Any]) -> str:
    """What the contract allows, in words."""
    categories = description.get("categories") or ()
    rules = ["empty"] if description["nullable"] else []
    low, high = description.get("min"), description.get("max")
    if low is not None and high is not None:
        rules.append(f"{low:g} to {high:g}")
    elif low is not None:
        rules.append(f"{low:g} or more")
    elif high is not None:
        rules.append(f"{high:g} or less")
    if categories:
        more = f" and {len(categories) - 8} more" if len(categories) > 8 else ""
        rules.append(", ".join(escaped(category, 40) for category in categories[:8]) + more)
    return "; ".join(rules) or NONE


def _contents(column: "pd.Series", kind: str, role: str) -> str:
    """The range of numbers and moments, else the most frequent value with its share of all rows; of keys only how many.

    A page outlives an erasure, so it names no key and no text that only few rows have.
    """
    known = column.dropna()
    if known.empty:
        return "nothing"
    if role == "key":
        return f"{known.nunique():,} different"
    if kind == "datetime":
        return f"{known.min():%Y-%m-%d %H:%M} to {known.max():%Y-%m-%d %H:%M}"
    if kind in NUMERIC and kind != "bool":
        return f"{_short(known.min())} to {_short(known.max())}"
    counts = known.value_counts()
    share = 100 * int(counts.iloc[0]) / len(column)
    if kind == "text" and counts.iloc[0] < FEW:
        return f"{len(counts):,} different"
    different = f", {len(counts):,} different" if len(counts) > 1 else ""
    return f"mostly {escaped(counts.index[0], 40)} ({share:.1f} %){different}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _parameter(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escaped(value, 60)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
