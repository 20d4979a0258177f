"""The result of a design: the best model, how good it is, and how it was found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

#: A parameter nearer to a bound than this, as a fraction of its range, is reported to be on it: searches in u come
#: near a bound as a parabola does, and end before they are on it to rounding.
AT_BOUND = 1e-3
#: A constraint of less slack is active; this is well above the tolerance with which SciPy's methods meet it.
ACTIVE = 1e-4
#: A constraint violated by no more is met: SciPy's methods end on either side of it by about their tolerance.
FEASIBLE = 1e-6
#: Losses that differ by no more, relative to the best, count as equal; the report names the number.
NEAR = 1e-6
#: A report has at most so many rows of a table: a screen holds them.
ROWS = 20
#: A Hessian whose least eigenvalue is below this, relative to the largest, is singular within rounding.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Design:
    """The best of all starts. `print` it for a report.

    - `model`: `start` with the parameters found.
    - `loss`: its loss.
    - `result`: the outcome of the search that found it: "converged", "reached" (the target), "stalled", "unfinished",
      "failed" or "infeasible". `message` is the same as a sentence.
    - `converged`: whether it converged or reached the target, with all constraints met.
    - `gradient_norm`: the largest derivative of the loss, each parameter in units of its range (of an e-fold or its
      size, where it has no range), without those that a bound holds; with constraints it is that of the Lagrangian. It
      is 0 at an optimum.
    - `parameters`: the free parameters by name, physical.
    - `table`: a row for each free number: `name`, `value`, `low`, `high`, `bound` ("low", "high" or ""), `gradient`
      (dloss/dx), `per_cent` (the change of the loss if x grows by 1 %), `error` (see the argument `errors`), `rooms`
      (the derivative in x of each constraint's slack).
    - `constraints`: the slack of each, which is negative where it is violated.
    - `prices`: the fall of the least loss if a constraint were wider by 1. This is its multiplier μ in
      ∇loss = Σ μ ∇slack, 0 where it is not active. A parameter that the loss does not depend on can lower it so.
    - `evaluations`: the number of evaluations of the loss with its gradient, over all starts.
    - `losses`, `results`, `ends`: the loss, the result and the free numbers of every start.
    - `history`: "loss" and "gradient_norm", the best so far, shape (starts, steps); NaN after a search has ended.
    - `notes`: remarks, one sentence each.
    """

    model: Any
    loss: float
    result: str
    message: str
    gradient_norm: float
    parameters: Mapping[str, Any]
    table: list[dict[str, Any]]
    constraints: Mapping[str, float]
    prices: Mapping[str, float]
    evaluations: int
    losses: np.ndarray
    results: list[str]
    ends: np.ndarray
    history: Mapping[str, np.ndarray] = field(repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def converged(self) -> bool:
        """Whether the search converged or reached its target, with all constraints met."""
        return self.result in ("converged", "reached")

    @property
    def at_bound(self) -> dict[str, str]:
        """The free numbers that ended on a bound, each with "low" or "high"."""
        return {row["name"]: row["bound"] for row in self.table if row["bound"]}

    def __str__(self) -> str:
        lines = [
            *self._summary(),
            *self._constraints(),
            *self._table(),
            *self._active_constraints(),
        ]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)]).rstrip()

    def _summary(self) -> Iterator[str]:
        yield (
            f"loss {self.loss:.10g}, largest gradient {self.gradient_norm:.2g}, "
            f"{self.evaluations} evaluations"
        )
        yield self.message if self.converged else f"NOT CONVERGED. {self.message}"
        if len(self.results) > 1:
            counts = {name: self.results.count(name) for name in dict.fromkeys(self.results)}
            each = ", ".join(f"{n} {name}" for name, n in counts.items())
            near = np.abs(self.losses - self.loss) <= NEAR * max(1.0, abs(self.loss))
            close = np.sum(near & (np.array(self.results) != "infeasible"))
            yield f"{len(self.results)} starts: {each}; {close} within 1e-6 of the best loss"

    def _constraints(self) -> Iterator[str]:
        for name, slack in self.constraints.items():
            if slack < -FEASIBLE:
                yield f"constraint {name}: VIOLATED by {-slack:.3g}"
            else:
                active = "active, " if slack < ACTIVE else ""
                yield f"constraint {name}: {active}room {slack:.3g}"

    def _by_influence(self) -> list[dict[str, Any]]:
        """The rows of the table; of many, those first that change the loss most."""
        if len(self.table) <= ROWS:
            return self.table
        return sorted(self.table, key=lambda row: -abs(row["per_cent"]))

    def _table(self) -> Iterator[str]:
        rows = self._by_influence()
        errors = any(np.isfinite(row["error"]) for row in rows)
        head = f"{'parameter':24} {'value':>14} {'dloss/dx':>12} {'per 1 %':>12}"
        yield head + (f" {'+-':>11}" if errors else "")
        for row in rows[:ROWS]:
            line = f"{row['name']:24} {row['value']:14.8g} {row['gradient']:12.4g} {row['per_cent']:12.4g}"
            line += f" {row['error']:11.3g}" if errors else ""
            yield line + (f"  on its {row['bound']} bound" if row["bound"] else "")
        if len(rows) > ROWS:
            yield f"… and {len(rows) - ROWS} more with less influence"

    def _active_constraints(self) -> Iterator[str]:
        for name in [name for name, slack in self.constraints.items() if slack < ACTIVE]:
            yield f"active constraint {name}: 1 more room takes {self.prices[name]:.4g} off the loss"
            yield f"{'parameter':24} {'droom/dx':>12} {'per 1 %':>12}"
            slopes = [
                (row["name"], row["rooms"][name], row["value"]) for row in self._by_influence()
            ]
            slopes.sort(key=lambda entry: -abs(entry[1] * entry[2]))
            for parameter, slope, value in slopes[:ROWS]:
                yield f"{parameter:24} {slope:12.4g} {slope * value / 100:12.4g}"


def table(
    free: Any,
    x: np.ndarray,
    gradient: np.ndarray,
    error: np.ndarray,
    slack_slopes: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """The rows of a design's table."""
    s = np.asarray(free.box.scaled(jnp.asarray(x, free.dtype)))
    side = free.box.touching(s, AT_BOUND)
    low, high = np.asarray(free.box.low), np.asarray(free.box.high)
    return [
        {
            "name": name,
            "value": float(x[i]),
            "low": float(low[i]),
            "high": float(high[i]),
            "bound": {-1: "low", 0: "", 1: "high"}[int(side[i])],
            "gradient": float(gradient[i]),
            "per_cent": float(gradient[i] * x[i] / 100),
            "error": float(error[i]),
            "rooms": {constraint: float(slope[i]) for constraint, slope in slack_slopes.items()},
        }
        for i, name in enumerate(free.entries)
    ]


def projected_norm(
    box: Any, s: np.ndarray, slope: np.ndarray, margins: Any = (), normals: Any = ()
) -> float:
    """The largest derivative of the loss in s, without those that a bound holds.

    With constraints c ≥ 0 it is that of the Lagrangian f − μ·c, with the multipliers μ ≥ 0 of the active constraints
    that make it least.
    """
    prices = multipliers(box, s, slope, margins, normals)
    if np.any(prices):
        slope = slope - prices @ np.asarray(normals)
    side = _side(box, s)
    held = ((side < 0) & (slope > 0)) | ((side > 0) & (slope < 0))
    return float(np.max(np.abs(np.where(held, 0, slope)), initial=0.0))


def multipliers(
    box: Any, s: np.ndarray, slope: np.ndarray, margins: Any, normals: Any
) -> np.ndarray:
    """The μ ≥ 0 that make f − μ·c least steep in the parameters on no bound; 0 for constraints that are not active."""
    margins, normals = np.asarray(margins, float), np.asarray(normals, float)
    active, moving = margins < ACTIVE, _side(box, s) == 0
    prices = np.zeros(margins.shape)
    known = np.all(np.isfinite(normals[active])) and np.all(np.isfinite(slope))
    if np.any(active) and np.any(moving) and known:
        from scipy.optimize import nnls

        prices[active] = nnls(normals[active][:, moving].T, slope[moving])[0]
    return prices


def _side(box, s):
    """−1 where s is on its lower bound, 1 on its upper one, 0 elsewhere."""
    return box.touching(s, AT_BOUND) * np.sign(np.asarray(box.scale))


def error_bars(
    hessian: np.ndarray, rise: float, inside: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, str | None]:
    r"""The error bars $σ_i = \sqrt{2δ (H^{-1})_{ii}}$ with δ = `rise`; or NaN, and the reason why there are none.

    `inside` are the parameters that are on no bound; `size` scales them for the test whether H is positive definite.
    """
    error = np.full(len(size), np.nan)
    if not np.all(np.isfinite(hessian)):
        return error, "no error bars: the Hessian is not finite."
    if not np.any(inside):
        return error, "no error bars: every parameter is on a bound."
    H = (hessian * size[:, None] * size[None])[np.ix_(inside, inside)]
    values, vectors = np.linalg.eigh((H + H.T) / 2)
    if values[0] <= SINGULAR * max(abs(values[-1]), abs(values[0])):
        weak = np.asarray(np.flatnonzero(inside))[np.argmax(np.abs(vectors[:, 0]))]
        return error, (
            f"no error bars: the Hessian is not positive definite (eigenvalues {values[0]:.2g} to {values[-1]:.2g} in "
            f"units of the parameters' ranges); a direction, mostly of parameter {weak}, leaves the loss as it is."
        )
    variance = np.sum(vectors**2 / values, axis=1)
    error[inside] = np.sqrt(2 * rise * variance) * np.abs(size[inside])
    return error, None
