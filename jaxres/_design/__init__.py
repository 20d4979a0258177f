"""Inverse design: a search by gradients for the parameters that make a loss least."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from .result import Design as Design
from .scipy import SciPy as SciPy
from .search import LBFGS as LBFGS


def design(
    loss: Callable | Any,
    start: Any,
    *,
    bounds: Mapping[str, Any] | Any,
    optimiser: Any = LBFGS(),
    max_steps: int | Any = 200,
    starts: int | Any = 1,
    key: PRNGKeyArray | Any = None,
    tol: float | Any = 1e-7,
    target: float | Any = None,
    errors: float | Any = None,
    store: str | PathLike | Any = None,
    progress: bool | Any = None,
) -> Design:
    r"""Finds the parameters, between bounds, that make a loss least.

    **Arguments:**

    - `loss`: a function of the model (of several arguments if the model is a tuple) that returns a real number; or the
      number and a dict of constraints, each a real number that must not be negative. `jaxres.losses` has ready ones.
    - `start`: the model where the search begins. It may be any pytree, such as a `Reservoir`, `(system, reservoir)`,
      or a dict of numbers.
    - `bounds`: the numbers of the model that are free, by dotted names, each with its lowest and highest value:
      `{"rate": (0.1, 100.0), "packet.width": (0.5, None), "scatterer.heights": (-1.0, 1.0), "levels.1": (0.1, 2.0)}`.
      Everything else is held fixed. A positive lower bound (or 0 without an upper one) makes a parameter logarithmic.
    - `optimiser`: `jaxres.LBFGS()`; any optax transformation, such as `optax.adam(0.05)`, whose step is in radians of
      $u$, $x = x_{min} + (x_{max} - x_{min})(1 + \sin u)/2$; or `jaxres.SciPy("SLSQP")`, the one for constraints,
      `jaxres.SciPy("L-BFGS-B")`.
    - `max_steps`: the largest number of steps of a start. A step is one evaluation of the loss with its gradient.
    - `starts`: the number of starts, which are searched at once (by SciPy one after the other). The first is `start`,
      the others are drawn uniformly between the bounds, with `key`, by default `jax.random.key(0)`.
    - `tol`: a start has converged when no derivative of the loss in u is larger. SciPy has it as its own tolerance.
    - `target`: a start ends as soon as its loss is not above this.
    - `errors`: the rise δ of the loss that counts as one standard deviation, ½ for a negative log-likelihood. Then the
      table has error bars $\sqrt{2δ (H^{-1})_{ii}}$ from the Hessian H in the parameters that are on no bound.
    - `store`: the folder of a checkpoint. The same call continues there where an earlier one ended, also with more
      `max_steps`. (With SciPy, starts that are finished are kept.)
    - `progress`: whether to show a bar; by default it is shown on a terminal.

    **Returns:** `Design`: the best of all starts, its gradient, sensitivities and history. Its printed report states
    whether it converged and which parameters are on a bound.

    **Raises:** `ValueError` for a mistake in the arguments, before any work.

    !!! example
        >>> def loss(p):
        ...     return (p["x"] - 1) ** 2 + 10 * (p["y"] - p["x"]) ** 2
        >>> found = jr.design(loss, {"x": 3.0, "y": 2.0}, bounds={"x": (-5, 5), "y": (0.1, 10)})
        >>> found.result, {name: round(float(x), 5) for name, x in found.parameters.items()}
        ('converged', {'x': 1.0, 'y': 1.0})
    """
    from .drive import drive, prepare

    ready = prepare(
        loss,
        start,
        bounds=bounds,
        optimiser=optimiser,
        max_steps=max_steps,
        starts=starts,
        key=key,
        tol=tol,
        target=target,
        errors=errors,
    )
    return drive(ready, store=store, progress=progress)
