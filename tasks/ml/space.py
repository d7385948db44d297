"""The space of recipes: what a search may try, and how Optuna names it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.ml import models
from tasks.ml.recipe import Recipe
from tasks.ml.window import Window

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

ALL = "all"
FEWEST_COLUMNS = 3


@dataclass(frozen=True)
class Space:
    """Families with their parameters, windows, and how many of the best columns.

    Attributes:
        families: names of `models.FAMILIES`.
        windows: how much of the past may be learned from; the first is tried first.
        ranked: the feature columns, the most telling first; empty: all of them are always read.
    """

    families: tuple[str, ...]
    windows: tuple[Window, ...] = (Window(),)
    ranked: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The choices of columns by name: all of them, then half, a quarter, … of the most telling ones.

        >>> list(Space(("logistic",), ranked=tuple("abcdefgh")).columns)
        ['all', 'best 4']
        """
        choices: dict[str, tuple[str, ...]] = {ALL: ()}
        count = len(self.ranked) // 2
        while count >= FEWEST_COLUMNS:
            choices[f"best {count}"] = self.ranked[:count]
            count //= 2
        return choices

    def suggest(self, trial: "BaseTrial") -> Recipe:
        """A try: first the family, then its parameters (a conditional space; sample it with `TPESampler(group=True)`)."""
        family = models.FAMILIES[trial.suggest_categorical("family", list(self.families))]
        kind = family.model_fields["kind"].default
        params = {name: where.suggest(trial, f"{kind}.{name}") for name, where in family.space.items()}
        asked, windows = self._windows(kind)
        window = windows[trial.suggest_categorical(asked, list(windows))] if len(windows) > 1 else self.windows[0]
        columns = self.columns
        names = columns[trial.suggest_categorical("columns", list(columns))] if len(columns) > 1 else ()
        return Recipe.model_validate({"family": {"kind": kind} | params, "window": window, "features": names})

    def params(self, recipe: Recipe) -> dict[str, Any] | None:
        """A recipe as Optuna names it, moved into the ranges: Optuna takes any and fails later. None: its family is not here.

        A window or columns that are no choice of today become the nearest choice: a history that grows has other windows, and ranks columns anew.

        >>> Space(("logistic",)).params(Recipe(family=models.Logistic(C=1000)))
        {'family': 'logistic', 'logistic.C': 100.0}
        """
        family, kind = recipe.family, recipe.family.kind
        if kind not in self.families:
            return None
        inside = {name: min(max(getattr(family, name), where.low), where.high) for name, where in family.space.items()}
        named = {"family": kind, **{f"{kind}.{name}": value for name, value in inside.items()}}
        asked, windows = self._windows(kind)
        if len(windows) > 1:
            named[asked] = recipe.window.nearest([*windows.values()]).name
        if len(self.columns) > 1:
            named["columns"] = max(self.columns, key=lambda name: self._shared(name, recipe))
        return named

    def _windows(self, kind: str) -> tuple[str, dict[str, Window]]:
        """What Optuna calls the choice of a window, and the choices by name: a family that cannot weigh rows has no half-lives."""
        if models.FAMILIES[kind].weighs:
            return "window", {window.name: window for window in self.windows}
        return f"{kind}.window", {window.name: window for window in self.windows if window.kind != "decay"}

    def _shared(self, name: str, recipe: Recipe) -> float:
        """What part of the columns of a choice and of a recipe together both have."""
        ours, theirs = (set(columns or self.ranked) for columns in (self.columns[name], recipe.features))
        return len(ours & theirs) / len(ours | theirs)

    def starts(self, earlier: Sequence[Recipe]) -> list[dict[str, Any]]:
        """What is tried before anything is sampled: what the champion is made of, each family's defaults, what else was best before; each once.

        The first trial runs to its end however short the time is, so that no search forgets what the champion is made of.
        """
        recipes = [*earlier[:1], *(Recipe.usual(name) for name in self.families), *earlier[1:]]
        tried: list[dict[str, Any]] = []
        for params in map(self.params, recipes):
            if params is not None and params not in tried:
                tried.append(params)
        return tried
