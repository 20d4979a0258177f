"""What a design comes back with: the best model, how good it is, and how it was found."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

#: a parameter nearer to a bound than this, as a fraction of its range, is reported to be on it
AT_BOUND = 1e-3
#: a constraint with less room than this is active; violated by no more, it is met
ACTIVE, FEASIBLE = 1e-4, 1e-6


@dataclass(frozen=True)
class Design:
    """The best of all starts. `print` it for a report.

    - `model`: `start` with the parameters found.
    - `loss`: its loss.
    - `result`: what became of the search that found it: "converged", "reached" (the target), "stalled", "unfinished",
      "failed" or "infeasible". `message` is a sentence that says so.
    - `converged`: whether it converged or reached the target, with all constraints met.
    - `gradient_norm`: the largest derivative of the loss in a parameter's range (in an e-fold or its size, where it has
      no range), without what bounds hold; with constraints, that of the Lagrangian: 0 at an optimum.
    - `parameters`: the free parameters by name, physical.
    - `table`: a row for each free number: `name`, `value`, `low`, `high`, `bound` ("low", "high" or ""), `gradient`
      (dloss/dx), `per_cent` (what the loss changes if x grows by 1 %), `error` (see `errors`), `rooms` (droom/dx of
      each constraint).
    - `constraints`: how much room each leaves (negative: violated).
    - `prices`: of each constraint, what the least loss would fall by if it were wider by 1: its multiplier μ in
      ∇loss = Σ μ ∇room, 0 where it is not active. A parameter whose loss does not depend on it may set the loss so.
    - `evaluations`: evaluations of the loss with its gradient, all starts together.
    - `losses`, `results`, `ends`: of every start: the loss, the result, the free numbers.
    - `history`: "loss" and "gradient_norm", the best so far, shape (starts, steps); NaN after a search has ended.
    - `notes`: what else there is to know.
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
        """Whether the search ended as it should."""
        return self.result in ("converged", "reached")

    @property
    def at_bound(self) -> dict[str, str]:
        """The free numbers that ended on a bound, and on which."""
        return {row["name"]: row["bound"] for row in self.table if row["bound"]}

    def __str__(self) -> str:
        out = io.StringIO()
        say = lambda line: print(line, file=out)  # noqa: E731
        say(
            f"loss {self.loss:.10g}, largest gradient {self.gradient_norm:.2g}, {self.evaluations} evaluations"
        )
        say(("" if self.converged else "NOT CONVERGED. ") + self.message)
        counts = {o: self.results.count(o) for o in dict.fromkeys(self.results)}
        if len(self.results) > 1:
            near = np.abs(self.losses - self.loss) <= 1e-6 * max(1.0, abs(self.loss))
            close = np.sum(near & (np.array(self.results) != "infeasible"))
            each = ", ".join(f"{n} {name}" for name, n in counts.items())
            say(f"{len(self.results)} starts: {each}; {close} within 1e-6 of the best loss")
        for name, room in self.constraints.items():
            kind = (
                "VIOLATED by" if room < -FEASIBLE else "active, room" if room < ACTIVE else "room"
            )
            say(f"constraint {name}: {kind} {abs(room) if room < -FEASIBLE else room:.3g}")
        errors = any(np.isfinite(row["error"]) for row in self.table)
        head = f"{'parameter':24} {'value':>14} {'dloss/dx':>12} {'per 1 %':>12}"
        say(head + (f" {'+-':>11}" if errors else ""))
        # many alike: the most telling ones
        rows = (
            sorted(self.table, key=lambda row: -abs(row["per_cent"]))
            if len(self.table) > 20
            else self.table
        )
        for row in rows[:20]:
            line = f"{row['name']:24} {row['value']:14.8g} {row['gradient']:12.4g} {row['per_cent']:12.4g}"
            line += f" {row['error']:11.3g}" if errors else ""
            say(line + (f"  on its {row['bound']} bound" if row["bound"] else ""))
        if len(rows) > 20:
            say(f"… and {len(rows) - 20} more with less influence")
        for name, room in self.constraints.items():
            if room < ACTIVE:
                say(
                    f"active constraint {name}: 1 more room takes {self.prices[name]:.4g} off the loss"
                )
                say(f"{'parameter':24} {'droom/dx':>12} {'per 1 %':>12}")
                for row in sorted(rows, key=lambda row: -abs(row["rooms"][name] * row["value"]))[
                    :20
                ]:
                    slope = row["rooms"][name]
                    say(f"{row['name']:24} {slope:12.4g} {slope * row['value'] / 100:12.4g}")
        for note in self.notes:
            say(f"Note: {note}")
        return out.getvalue().rstrip()


def table(
    free: Any,
    x: np.ndarray,
    gradient: np.ndarray,
    error: np.ndarray,
    rooms: Mapping[str, np.ndarray],
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
            "rooms": {constraint: float(slope[i]) for constraint, slope in rooms.items()},
        }
        for i, name in enumerate(free.entries)
    ]


def projected_norm(
    box: Any, s: np.ndarray, slope: np.ndarray, margins: Any = (), normals: Any = ()
) -> float:
    """The largest derivative in s, without what a bound holds, or a constraint.

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
    """The μ ≥ 0 of the active constraints that make f − μ·c least steep where no bound holds; 0 of the others."""
    margins, normals = np.asarray(margins, float), np.asarray(normals, float)
    active, moving = margins < ACTIVE, _side(box, s) == 0
    prices = np.zeros(margins.shape)
    known = np.all(np.isfinite(normals[active])) and np.all(np.isfinite(slope))
    if np.any(active) and np.any(moving) and known:
        from scipy.optimize import nnls

        prices[active] = nnls(normals[active][:, moving].T, slope[moving])[0]
    return prices


def _side(box, s):
    """The bound of s that a point is on: −1, 1, or 0 for none."""
    return box.touching(s, AT_BOUND) * np.sign(np.asarray(box.scale))


def error_bars(
    hessian: np.ndarray, rise: float, inside: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, str | None]:
    r"""How far each parameter can be off, $σ_i = \sqrt{2δ (H^{-1})_{ii}}$, and what stands against it.

    `inside` are the parameters that are on no bound; `size` scales them for the test whether H is positive.
    """
    error = np.full(len(size), np.nan)
    if not np.all(np.isfinite(hessian)):
        return error, "no error bars: the Hessian is not finite."
    if not np.any(inside):
        return error, "no error bars: every parameter is on a bound."
    H = (hessian * size[:, None] * size[None])[np.ix_(inside, inside)]
    values, vectors = np.linalg.eigh((H + H.T) / 2)
    if values[0] <= 1e-12 * max(abs(values[-1]), abs(values[0])):
        weak = np.asarray(np.flatnonzero(inside))[np.argmax(np.abs(vectors[:, 0]))]
        return error, (
            f"no error bars: the Hessian is not positive definite (eigenvalues {values[0]:.2g} to {values[-1]:.2g} in "
            f"units of the parameters' ranges); a direction, mostly of parameter {weak}, leaves the loss as it is."
        )
    variance = np.sum(vectors**2 / values, axis=1)
    error[inside] = np.sqrt(2 * rise * variance) * np.abs(size[inside])
    return error, None
