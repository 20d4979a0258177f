"""SciPy's methods, which know bounds and constraints, fed with exact gradients. The starts run one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .free import Box
from .result import FEASIBLE, NEAR, projected_norm
from .search import SEARCH_RESULTS, scalar_loss

METHODS = ("SLSQP", "L-BFGS-B")
#: A search ends after so many evaluations without a gain beyond rounding, where SLSQP's line search may never end.
PATIENCE = 30
#: A fall of the loss by less, relative to it, is rounding: some ten units in the last place of double precision.
ROUNDING = 1e-14


class SciPy(eqx.Module):
    r"""A method of `scipy.optimize.minimize`: "SLSQP", which takes constraints, or "L-BFGS-B".

    A penalty bends sharply where its constraint begins to be violated, which costs a search that knows only the sum
    many evaluations. SLSQP is given the parts of a `jaxres.losses.Penalised` instead, in the form

    $$\min_{x,\, t ≥ 0} f(x) + \tfrac12 t^2, \qquad c(x) + t/\sqrt{2w} ≥ 0,$$

    which has the same minimum, $f + w \min(c, 0)^2$, and is smooth in all that the method sees.

    **Raises:** `ValueError` for another method.
    """

    method: str = eqx.field(static=True, default="SLSQP")

    def __check_init__(self):
        if self.method not in METHODS:
            raise ValueError(
                f"Argument `method` must be one of {', '.join(METHODS)}, but is {self.method!r}."
            )


@eqx.filter_jit
def _evaluate(
    s: Float[Array, " n"], loss: Any, model: Any, shapes: tuple, box: Box
) -> tuple[Float[Array, "m n"], Float[Array, " m"]]:
    """The derivatives in s, and the loss followed by the constraints."""

    def both(s):
        out = scalar_loss(loss, model, shapes, box.physical(s))
        value, margins = out if isinstance(out, tuple) else (out, {})
        vector = jnp.stack(
            [jnp.asarray(v, s.dtype) for v in (value, *(margins[name] for name in sorted(margins)))]
        )
        return vector, vector

    return jax.jacrev(both, has_aux=True)(s)


class Evaluation(NamedTuple):
    """The loss followed by the constraints at s, `values`, and their derivatives in s, `slopes`."""

    s: np.ndarray
    values: np.ndarray
    slopes: np.ndarray
    finite: bool = True


class Score(NamedTuple):
    """A point as points are compared: constraints that are penalties are part of `loss` and not among `margins`."""

    loss: float
    slack: float  # the least of the margins, at most 0
    s: np.ndarray
    slope: np.ndarray
    margins: np.ndarray
    normals: np.ndarray  # the derivatives of the margins
    penalised: np.ndarray  # the constraints that are penalties

    @property
    def feasible(self) -> bool:
        """Whether every constraint is met."""
        return bool(self.slack >= -FEASIBLE)

    def improves_on(self, other: "Score") -> bool:
        """Feasible points come before infeasible ones; then the lower loss counts, or the smaller violation."""
        if self.feasible != other.feasible:
            return self.feasible
        return bool(self.loss < other.loss if self.feasible else self.slack > other.slack)


class _Enough(Exception):
    """The steps are used up, or the target is reached."""


class _NoGain(Exception):
    """The loss has not fallen for `PATIENCE` evaluations."""


@dataclass
class Run:
    """The search from one start. `evaluate` returns derivatives and values at s; every new s is one evaluation.

    The method sees the four functions `objective` to `margin_slopes` of z = (s, t). With a `weight` the constraints
    are penalties, and there is one t for each of them; otherwise there is none.
    """

    start: np.ndarray
    evaluate: Callable[[np.ndarray], Any]
    constraints: int
    box: Box
    steps: int
    tol: float
    target: float
    weight: float | None = None

    def __post_init__(self):
        n, penalties = self.start.size, 0 if self.weight is None else self.constraints
        self.root = np.sqrt(2 * (self.weight or 1))
        self.dmargins_dt = np.eye(self.constraints, penalties) / self.root
        self.last: Evaluation | None = None
        self.last_finite: Evaluation | None = None
        self.last_gain = 0
        self.losses: list[float] = []
        self.norms: list[float] = []
        margins = np.full(self.constraints - penalties, np.nan)
        normals = np.full((margins.size, n), np.nan)
        self.best = Score(
            np.inf, -np.inf, self.start, np.full(n, np.nan), margins, normals, np.full(penalties, np.nan)
        )  # fmt: skip

    def objective(self, z: np.ndarray) -> float:
        """f(s) + t²/2."""
        _, t = self._split(z)
        return float(self.at(z).values[0] + t @ t / 2)

    def objective_slope(self, z: np.ndarray) -> np.ndarray:
        """The derivatives of f(s) + t²/2."""
        return np.concatenate([self.at(z).slopes[0], self._split(z)[1]])

    def margins(self, z: np.ndarray) -> np.ndarray:
        """c(s) + t/√(2w)."""
        return self.at(z).values[1:] + self.dmargins_dt @ self._split(z)[1]

    def margin_slopes(self, z: np.ndarray) -> np.ndarray:
        """The derivatives of c(s) + t/√(2w)."""
        return np.hstack([self.at(z).slopes[1:], self.dmargins_dt])

    def _split(self, z):
        return z[: self.start.size], z[self.start.size :]

    def at(self, z: np.ndarray) -> Evaluation:
        """The evaluation at z, which is new unless s is the last one; an exception ends the search."""
        s, _ = self._split(z)
        if self.last is not None and np.array_equal(self.last.s, s):
            return self.last
        if len(self.losses) >= self.steps:
            raise _Enough
        slopes, values = (np.asarray(x, float) for x in self.evaluate(s))
        if np.all(np.isfinite(values)) and np.all(np.isfinite(slopes)):
            self.last = self.last_finite = Evaluation(s.copy(), values, slopes)
            self._compare(self._score(self.last))
        else:
            self.last = self._wall(s.copy())
        self.losses.append(self.best.loss)
        self.norms.append(self._norm(self.best))
        if self.reached:
            raise _Enough
        if np.isfinite(self.best.loss) and len(self.losses) - self.last_gain > PATIENCE:
            raise _NoGain
        return self.last

    @property
    def reached(self) -> bool:
        """Whether the best point has the target's loss and meets the constraints."""
        return bool(self.best.feasible and self.best.loss <= self.target)

    def _norm(self, point: Score) -> float:
        return projected_norm(self.box, point.s, point.slope, point.margins, point.normals)

    def _score(self, point: Evaluation) -> Score:
        s, values, slopes, _ = point
        penalised = values[1:] if self.weight is not None else values[:0]
        if self.weight is not None:
            violation = np.minimum(penalised, 0)
            loss = values[0] + self.weight * violation @ violation
            slope = slopes[0] + 2 * self.weight * violation @ slopes[1:]
            values, slopes = loss[None], slope[None]
        slack = np.min(values[1:], initial=0.0)
        return Score(values[0], slack, s, slopes[0], values[1:], slopes[1:], penalised)

    def _compare(self, point: Score) -> None:
        """Keeps the point if it is better, and notes when the loss last fell by more than rounding."""
        if not point.improves_on(self.best):
            return
        rounding = ROUNDING * max(1.0, abs(point.loss))
        if not (self.best.feasible and self.best.loss - point.loss <= rounding):
            self.last_gain = len(self.losses)
        self.best = point

    def _wall(self, s: np.ndarray) -> Evaluation:
        """Replaces values that are not finite, by values as much higher as the last finite point promised to be lower.

        A line search that interpolates then comes back part of the way. A much larger number would send it all the
        way back, where the methods see no progress and end.
        """
        values, slopes = np.zeros(self.constraints + 1), np.zeros((self.constraints + 1, s.size))
        if self.last_finite is not None:
            rise = np.abs(self.last_finite.slopes @ (s - self.last_finite.s))
            values = self.last_finite.values + np.concatenate([rise[:1], -rise[1:]])
        return Evaluation(s, values, slopes, finite=False)

    def minimise(self, method: str) -> dict[str, Any]:
        """Runs the method, and returns the arrays that a checkpoint keeps of the start."""
        end, success, message = None, False, ""
        try:
            end, success, message = self._search(method)
        except _Enough:
            pass
        except _NoGain:
            end, message = self.last, f"no lower loss in {PATIENCE} evaluations"
        if end is not None and end.finite:
            self._prefer(self._score(end))
        norm = self._norm(self.best)
        if self.reached:
            result = "reached"
        elif not np.isfinite(self.best.loss):
            result = "failed"
        elif not self.best.feasible:
            result = "infeasible"
        elif end is None:
            result = "unfinished"
        else:  # the methods end with an error too where rounding keeps them from doing still better
            result = "converged" if success or norm <= 10 * self.tol else "stalled"
        kept = self.best._asdict()
        return {
            "room": kept.pop("slack"),  # this is its name in checkpoints
            **kept,
            "norm": norm,
            "result": int(getattr(SEARCH_RESULTS, result)._value),
            "message": message,
            "losses": np.asarray(self.losses),
            "norms": np.asarray(self.norms),
        }

    def _search(self, method: str) -> tuple[Evaluation, bool, str]:
        from scipy.optimize import minimize

        options: dict[str, Any] = {"maxiter": self.steps}
        if method == "SLSQP":
            # near a minimum the loss is quadratic: a gradient of tol leaves it about tol² above
            options |= {"ftol": max(100 * self.tol**2, 1e-16)}
        else:
            # the gradient ends the search; at a smaller change than 1e-15 of the loss, rounding does
            options |= {"gtol": self.tol, "ftol": 1e-15, "maxfun": self.steps}
        rules = {"type": "ineq", "fun": self.margins, "jac": self.margin_slopes}
        low, high = self.box.limits()
        penalised = self._score(self.at(self.start)).penalised
        done = minimize(
            self.objective,
            np.concatenate([self.start, self.root * np.maximum(-penalised, 0)]),
            jac=self.objective_slope,
            method=method,
            bounds=[*zip(low, high, strict=True), *[(0, np.inf)] * penalised.size],
            constraints=(rules,) if self.constraints else (),
            options=options,
        )
        return self.at(done.x), done.success, str(done.message)

    def _prefer(self, end: Score) -> None:
        """Takes the method's end for the best point, unless that is lower by more than `NEAR`, or flatter.

        Where constraints are active, a loss that is lower since it lies a rounding outside is not a better end.
        """
        near = end.loss <= self.best.loss + NEAR * max(1.0, abs(self.best.loss))
        if near and end.feasible and self._norm(end) <= max(self._norm(self.best), self.tol):
            self.best = end
