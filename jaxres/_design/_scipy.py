"""SciPy's methods, which know bounds and constraints, fed with exact gradients. One start after the other."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._free import Box
from ._result import FEASIBLE, projected_norm
from ._search import OUTCOMES, scalar_loss

METHODS = ("SLSQP", "L-BFGS-B")


class SciPy(eqx.Module):
    """A method of `scipy.optimize.minimize`: "SLSQP", which takes constraints, or "L-BFGS-B".

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
        vector = jnp.stack([jnp.asarray(v, s.dtype) for v in (value, *margins.values())])
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
) -> dict[str, Any]:
    """One start. `evaluate` gives derivatives and values at s; every new s is one solve."""
    from scipy.optimize import minimize

    low, high = box.limits()
    losses: list[float] = []
    norms: list[float] = []
    last: dict[str, Any] = {"s": None}
    nothing = np.full((constraints + 1, start.size), np.nan)
    best: dict[str, Any] = {
        "loss": np.inf,
        "room": -np.inf,
        "s": start,
        "slope": nothing[0],
        "margins": nothing[1:, 0],
        "normals": nothing[1:],
    }

    def norm():
        return projected_norm(box, best["s"], best["slope"], best["margins"], best["normals"])

    wall = [1.0]

    class Enough(Exception):
        pass

    def keep(s, values, slopes):
        best.update(
            loss=values[0],
            room=np.min(values[1:], initial=0.0),
            s=s.copy(),
            slope=slopes[0],
            margins=values[1:],
            normals=slopes[1:],
        )

    def at(s):
        if last["s"] is None or not np.array_equal(last["s"], s):
            if len(losses) >= steps:
                raise Enough
            slopes, values = (np.asarray(x, float) for x in evaluate(s))
            good = bool(np.all(np.isfinite(values)) and np.all(np.isfinite(slopes)))
            if good:
                wall[0] = max(wall[0], abs(values[0]))
                room = np.min(values[1:], initial=0.0)
                feasible, was = room >= -FEASIBLE, best["room"] >= -FEASIBLE
                better = values[0] < best["loss"] if feasible else room > best["room"]
                # feasible before infeasible; then the lower loss, or the smaller violation
                if (feasible, better) > (was, False):
                    keep(s, values, slopes)
            else:  # a wall, which the line search walks back from
                values = np.concatenate([[1e3 * wall[0]], np.zeros(constraints)])
                slopes = np.zeros((constraints + 1, s.size))
            last.update(s=s.copy(), values=values, slopes=slopes, good=good)
            losses.append(best["loss"])
            norms.append(norm())
            if best["room"] >= -FEASIBLE and best["loss"] <= target:
                raise Enough
        return last

    options: dict[str, Any] = {"maxiter": steps}
    options |= (
        {"ftol": max(tol**2, 1e-12)}
        if method == "SLSQP"
        else {"gtol": tol, "ftol": 1e-15, "maxfun": steps}
    )
    rules: Any = ()
    if constraints:
        rules = (
            {
                "type": "ineq",
                "fun": lambda s: at(s)["values"][1:],
                "jac": lambda s: at(s)["slopes"][1:],
            },
        )
    message = ""
    try:
        done = minimize(
            lambda s: float(at(s)["values"][0]),
            start,
            jac=lambda s: at(s)["slopes"][0],
            method=method,
            bounds=list(zip(low, high, strict=True)),
            constraints=rules,
            options=options,
        )
        # where constraints are active, a lower loss a rounding outside is no better end
        end = at(done.x)
        if end["good"] and np.min(end["values"][1:], initial=0.0) >= -FEASIBLE:
            if end["values"][0] <= best["loss"] + 1e-6 * max(1.0, abs(best["loss"])):
                keep(done.x, end["values"], end["slopes"])
        # the methods end with an error too where rounding keeps them from doing still better
        good = done.success or norm() <= 10 * tol
        outcome, message = ("converged" if good else "stalled"), str(done.message)
    except Enough:
        outcome = "unfinished"
    if best["loss"] <= target and best["room"] >= -FEASIBLE:
        outcome = "reached"
    elif not np.isfinite(best["loss"]):
        outcome = "failed"
    elif best["room"] < -FEASIBLE:
        outcome = "infeasible"
    return {
        **best,
        "norm": norm(),
        "outcome": int(getattr(OUTCOMES, outcome)._value),
        "message": message,
        "losses": np.asarray(losses),
        "norms": np.asarray(norms),
    }
