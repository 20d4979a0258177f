"""SciPy's methods, which know bounds and constraints, fed with exact gradients. One start after the other."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .free import Box
from .result import FEASIBLE, projected_norm
from .search import SEARCH_RESULTS, scalar_loss

METHODS = ("SLSQP", "L-BFGS-B")
#: evaluations without a gain beyond rounding, after which a search ends: SLSQP's line search may go on and on there
PATIENCE = 30


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


def minimise(
    start: np.ndarray,
    evaluate: Callable[[np.ndarray], Any],
    constraints: int,
    box: Box,
    method: str,
    steps: int,
    tol: float,
    target: float,
    weight: float | None = None,
) -> dict[str, Any]:
    """One start. `evaluate` gives derivatives and values at s; every new s is one solve.

    With a `weight` the constraints are penalties: the method moves (s, t), and all else sees the penalised loss.
    """
    from scipy.optimize import minimize

    low, high = box.limits()
    n, slacks = start.size, constraints if weight is not None else 0
    relief = np.eye(constraints, slacks) / np.sqrt(2 * (weight or 1))
    losses: list[float] = []
    norms: list[float] = []
    last: dict[str, Any] = {"s": None, "gain": 0}
    good: dict[str, Any] = {}
    best: dict[str, Any] = {
        "loss": np.inf,
        "room": -np.inf,
        "s": start,
        "slope": np.full(n, np.nan),
        "margins": np.full(constraints - slacks, np.nan),
        "normals": np.full((constraints - slacks, n), np.nan),
        "penalised": np.full(slacks, np.nan),
    }

    def norm():
        return projected_norm(box, best["s"], best["slope"], best["margins"], best["normals"])

    class Enough(Exception):
        pass

    class NoGain(Exception):
        pass

    def judged(values, slopes):
        """The loss and the constraints as they count."""
        if weight is None:
            return values, slopes
        short = np.minimum(values[1:], 0)
        loss, slope = (
            values[0] + weight * short @ short,
            slopes[0] + 2 * weight * short @ slopes[1:],
        )
        return loss[None], slope[None]

    def keep(s, values, slopes):
        counts, ways = judged(values, slopes)
        best.update(
            loss=counts[0],
            room=np.min(counts[1:], initial=0.0),
            s=s.copy(),
            slope=ways[0],
            margins=counts[1:],
            normals=ways[1:],
            penalised=values[1:][:slacks],
        )

    def at(z):
        s = z[:n]
        if last["s"] is None or not np.array_equal(last["s"], s):
            if len(losses) >= steps:
                raise Enough
            slopes, values = (np.asarray(x, float) for x in evaluate(s))
            finite = bool(np.all(np.isfinite(values)) and np.all(np.isfinite(slopes)))
            if finite:
                good.update(s=s.copy(), values=values, slopes=slopes)
                counts, _ = judged(values, slopes)
                room = np.min(counts[1:], initial=0.0)
                feasible, was = room >= -FEASIBLE, best["room"] >= -FEASIBLE
                better = counts[0] < best["loss"] if feasible else room > best["room"]
                # feasible before infeasible; then the lower loss, or the smaller violation
                if (feasible, better) > (was, False):
                    rounding = 1e-14 * max(1.0, abs(counts[0]))
                    if not (was and best["loss"] - counts[0] <= rounding):
                        last["gain"] = len(losses)
                    keep(s, values, slopes)
            else:
                values, slopes = wall(s)
            last.update(s=s.copy(), values=values, slopes=slopes, good=finite)
            losses.append(best["loss"])
            norms.append(norm())
            if best["room"] >= -FEASIBLE and best["loss"] <= target:
                raise Enough
            if np.isfinite(best["loss"]) and len(losses) - last["gain"] > PATIENCE:
                raise NoGain
        return last

    def wall(s):
        """Where nothing is finite: as much higher as the last good point promised to be lower.

        So a line search that interpolates comes back part of the way. A much larger number would send it all the way
        back, where the methods see no progress, and end.
        """
        if not good:
            return np.zeros(constraints + 1), np.zeros((constraints + 1, n))
        rise = np.abs(good["slopes"] @ (s - good["s"]))
        values = good["values"] + np.concatenate([rise[:1], -rise[1:]])
        return values, np.zeros((constraints + 1, n))

    options: dict[str, Any] = {"maxiter": steps}
    options |= (
        {"ftol": max(100 * tol**2, 1e-16)}
        if method == "SLSQP"
        else {"gtol": tol, "ftol": 1e-15, "maxfun": steps}
    )
    rules: Any = ()
    if constraints:
        rules = (
            {
                "type": "ineq",
                "fun": lambda z: at(z)["values"][1:] + relief @ z[n:],
                "jac": lambda z: np.hstack([at(z)["slopes"][1:], relief]),
            },
        )
    message = ""
    try:
        first = at(start)["values"][1:][:slacks]
        begin = np.concatenate([start, np.sqrt(2 * (weight or 1)) * np.maximum(-first, 0)])
        done = minimize(
            lambda z: float(at(z)["values"][0] + z[n:] @ z[n:] / 2),
            begin,
            jac=lambda z: np.concatenate([at(z)["slopes"][0], z[n:]]),
            method=method,
            bounds=[*zip(low, high, strict=True), *[(0, np.inf)] * slacks],
            constraints=rules,
            options=options,
        )
        end, ended, message = at(done.x), done.success, str(done.message)
    except Enough:
        end, ended = None, False
    except NoGain:
        end, ended, message = last, False, f"no lower loss in {PATIENCE} evaluations"
    if end is not None and end["good"]:
        # where constraints are active, a lower loss a rounding outside is no better end
        counts, _ = judged(end["values"], end["slopes"])
        near = counts[0] <= best["loss"] + 1e-6 * max(1.0, abs(best["loss"]))
        if near and np.min(counts[1:], initial=0.0) >= -FEASIBLE:
            before, steep = dict(best), norm()
            keep(end["s"], end["values"], end["slopes"])
            if norm() > max(steep, tol):
                best.update(before)
    # the methods end with an error too where rounding keeps them from doing still better
    ended = ended or (end is not None and norm() <= 10 * tol)
    result = "unfinished" if end is None else "converged" if ended else "stalled"
    if best["loss"] <= target and best["room"] >= -FEASIBLE:
        result = "reached"
    elif not np.isfinite(best["loss"]):
        result = "failed"
    elif best["room"] < -FEASIBLE:
        result = "infeasible"
    return {
        **best,
        "norm": norm(),
        "result": int(getattr(SEARCH_RESULTS, result)._value),
        "message": message,
        "losses": np.asarray(losses),
        "norms": np.asarray(norms),
    }
