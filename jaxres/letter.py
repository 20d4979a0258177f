"""The Letter's model and its parameters, and the data of its figures."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._checks import Checked, Scalar, as_count, as_scalar, as_vector, check_instance, door, require
from ._dynamics.collisions import Collisions
from ._dynamics.perturbation import coherence_law as coherence_law
from ._dynamics.steady_state import solve_steady_state
from ._dynamics.trajectories import trajectory
from ._letter_data import MODEL, STATE, dataset
from ._quantum.states import gibbs_state, populations, trace_distance
from ._quantum.system import System
from ._reservoir.packet import EffusionPacket
from ._reservoir.reservoir import Incidence, Reservoir
from ._reservoir.scatterer import Slab
from ._scattering.amplitudes import AbstractAmplitudes, Exact
from ._scattering.scattering_map import scattering_map

if TYPE_CHECKING:
    import xarray

Models = Mapping[str, AbstractAmplitudes]

EXACT: Models = MappingProxyType({"exact": Exact()})


_NONNEGATIVE, _POSITIVE = ("splitting", "rate"), ("length", "beta", "mass", "width")


def _parameter(name: str, x: Any) -> Float[Array, ""]:
    """Converts and checks one parameter of the model."""
    return as_scalar(name, x, positive=name in _POSITIVE, nonnegative=name in _NONNEGATIVE)


@door
def model(
    *,
    splitting: Scalar = 0.6,
    coupling: Scalar = 1.0,
    length: Scalar = 1.0,
    beta: Scalar = 0.1,
    mass: Scalar = 0.1,
    width: Scalar = 1.0,
    position: Scalar = -10.0,
    rate: Scalar = 5.0,
    incidence: Checked[Incidence] = "left",
) -> tuple[System, Reservoir]:
    r"""The Letter's qubit and its reservoir.

    $$H_S = \frac{Δ}{2} σ_z, \qquad V = λ(σ_x + σ_y) \text{ on } 0 < x < L$$

    The particles are effusion packets. Defaults are the Letter's parameters with Γ = 5 and Δ = 0.6 (ħ = 1). In the
    energy eigenbasis, ground state (spin down) first, V_01 = λ(1 + i).

    **Arguments:** `splitting` Δ ≥ 0, `coupling` λ, `length` L, `beta` β, `mass` m, `width` Δx, `position` x₀, `rate` Γ;
    `incidence` as for `Reservoir`.

    **Returns:** the system and the reservoir.

    **Raises:** `ValueError` for a parameter that is not admissible.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=1.0)
        >>> print(jnp.round(jr.coherence(jr.steady_state(system, reservoir).rho), 6))
        0.020749
    """
    splitting, coupling = _parameter("splitting", splitting), _parameter("coupling", coupling)
    system = System(levels=jnp.stack([-splitting / 2, splitting / 2]))
    V = coupling * jnp.array([[0, 1 + 1j], [1 - 1j, 0]])
    packet = EffusionPacket(beta=beta, mass=mass, width=width, position=position)
    return system, Reservoir(
        packet=packet, scatterer=Slab(coupling=V, length=length), rate=rate, incidence=incidence
    )


# --------------------------------------------------------------------------------------------------
# The figures' data. λ, L and ħ are the units: they are 1 in the Letter.
# --------------------------------------------------------------------------------------------------


def figure1(
    *,
    amplitudes: Models = EXACT,
    rates: Sequence[float] = (10.0, 5.0, 1.0),
    collisions: int = 100,
    key: PRNGKeyArray | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> "xarray.Dataset":
    r"""Populations along one realisation of the collision times (Fig. 1, Eq. 5).

    The qubit starts in its excited state. There is one curve for each rate Γ, and a last one at the
    first rate with full dephasing (Eq. 3) after each collision, which converges to the Gibbs state
    (Eq. 4). All curves have the same realisation: their collisions happen at the same Γt.

    **Arguments:**

    - `amplitudes`: collision models by name.
    - `rates`: the rates Γ of the curves.
    - `collisions`: number n of collisions.
    - `key`: the random key of the realisation, by default `jax.random.key(0)`.
    - `progress`: wraps the sequence of work items, e.g. `tqdm.tqdm`.

    **Returns:** `xarray.Dataset` with `rho` (model, curve, collision, j, k), the state right after
    each collision, where collision 0 is the start, `time` (curve, collision) and the populations
    `gibbs` (j).

    **Raises:** `ValueError` for no rate, a rate that is not positive, or fewer than 1 collision.

    !!! example
        >>> data = jr.letter.figure1(collisions=100)
        >>> dephased = data.rho.sel(model="exact", j=0, k=0).isel(curve=-1).real
        >>> print(dephased.values[[0, -1]].round(4), data.gibbs.values[0].round(4))
        [0.    0.515] 0.515
    """
    _check_models(amplitudes)
    rates = np.asarray(as_vector("rates", rates, shape="(G,)")).tolist()
    require(len(rates) > 0, "Argument `rates` must have at least one rate, but has none.")
    collisions = as_count("collisions", collisions, 1)
    key = jax.random.key(0) if key is None else key
    curves = [(rate, False) for rate in rates] + [(rates[0], True)]
    excited = jnp.diag(jnp.array([0.0, 1.0]))
    paths = []
    for name, (rate, dephased) in progress([(m, c) for m in amplitudes for c in curves]):
        system, reservoir = model(rate=rate)
        path = trajectory(
            system,
            reservoir,
            excited,
            collisions=collisions,
            key=key,
            dephase=dephased,
            amplitudes=amplitudes[name],
        )
        paths.append(jax.device_get(path))
    shape = (len(amplitudes), len(curves), collisions + 1)
    return dataset(
        "Populations along one realisation of the collision times (Fig. 1)",
        {
            "rho": ((*MODEL, "curve", "collision", *STATE), _stack(paths, "states", shape)),
            "time": (("curve", "collision"), _stack(paths, "times", shape)[0]),
            "gibbs": ("j", populations(_gibbs())),
        },
        {
            "model": list(amplitudes),
            "rate": ("curve", [rate for rate, _ in curves]),
            "dephased": ("curve", [dephased for _, dephased in curves]),
            "collision": range(collisions + 1),
        },
        initial_state="excited",
        **_parameters("rate"),
    )


def figure2(
    *,
    amplitudes: Models = EXACT,
    rates: Float[Array, " G"] | Sequence[float] | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> "xarray.Dataset":
    r"""The steady state as a function of the collision rate (Fig. 2), from one scattering map.

    **Arguments:**

    - `amplitudes`: collision models by name.
    - `rates`: the rates Γ, by default 201 from 0.01 to 100.
    - `progress`: wraps the sequence of work items, e.g. `tqdm.tqdm`.

    **Returns:** `xarray.Dataset` with `rho` (model, rate, j, k), its trace distance to the Gibbs
    state `distance` (model, rate), `map_error` (model) and the populations `gibbs` (j).

    **Raises:** `ValueError` for a negative rate.

    !!! example
        >>> data = jr.letter.figure2(rates=[1.0, 5.0])
        >>> print(abs(data.rho.sel(model="exact", j=0, k=1)).values.round(5))
        [0.02075 0.0993 ]
    """
    _check_models(amplitudes)
    rates = jnp.geomspace(0.01, 100, 201) if rates is None else as_vector("rates", rates)
    require(np.all(rates >= 0), f"Argument `rates` must not be negative, but is {rates}.")
    system, reservoir = model()
    gibbs = _gibbs()
    rho, distance, error = [], [], []
    for name in progress(list(amplitudes)):
        S = scattering_map(system, reservoir, amplitudes=amplitudes[name])
        rho.append(_over_rates(system.levels, S, rates))
        distance.append(jax.vmap(trace_distance, (0, None))(rho[-1], gibbs))
        error.append(float(S.error))
    return dataset(
        "Steady state against the collision rate (Fig. 2)",
        {
            "rho": ((*MODEL, "rate", *STATE), np.stack(rho)),
            "distance": ((*MODEL, "rate"), np.stack(distance)),
            "map_error": (MODEL, error),
            "gibbs": ("j", populations(gibbs)),
        },
        {"model": list(amplitudes), "rate": np.asarray(rates)},
        **_parameters("rate"),
    )


def figure3(
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    points: int = 200,
    progress: Callable[[Sequence], Iterable] = iter,
) -> "xarray.Dataset":
    r"""Three maps of the steady coherence (Fig. 3): over (Γ, Δ), over (Δx, Δ), over (Δx, Γ).

    The parameter that is not on an axis is Δx = 1, Γ = 5, or Δ/2 = 0.6. The axes are logarithmic: Γ from
    0.01 to 100, Δ from 0.1 to 20, Δx from 0.1 (the validity bound of the packet is 0.08) to 30.

    **Arguments:**

    - `amplitudes`: model of the collision.
    - `points`: resolution of each axis.
    - `progress`: wraps the sequence of rows, e.g. `tqdm.tqdm`.

    **Returns:** `xarray.Dataset` with the complex `rho01_rate_splitting`, `rho01_width_splitting`
    and `rho01_width_rate`; their moduli by Eq. (24) without the prefactor, `law_rate_splitting` and so
    on; the `prefactor`; and `map_error` (splitting, width). Failed states are NaN.

    **Raises:** `ValueError` for fewer than 2 points.

    !!! example
        >>> data = jr.letter.figure3(points=3)
        >>> print(abs(data.rho01_rate_splitting).sel(rate=100).values.round(4))
        [0.4122 0.0254 0.0007]
    """
    points = as_count("points", points, 2)
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    rates = np.geomspace(0.01, 100, points)
    splittings = np.geomspace(0.1, 20, points)
    widths = np.geomspace(0.1, 30, points)
    rate, splitting, width = np.array([5.0, 1.2, 1.0])

    def row(splitting):
        """Returns the levels, the maps at all widths, and the map at the fixed width."""
        splitting = jnp.asarray(splitting)
        S = _over_widths(splitting, jnp.asarray([*widths, width]), amplitudes)
        levels = jnp.stack([-splitting / 2, splitting / 2])
        return levels, jax.tree.map(lambda x: x[:-1], S), jax.tree.map(lambda x: x[-1], S)

    rate_splitting, width_splitting, width_rate, error = [], [], [], []
    for d in progress(list(splittings)):
        levels, S, at_width = row(d)
        rate_splitting.append(np.asarray(_over_rates(levels, at_width, rates)[:, 0, 1]))
        width_splitting.append(np.asarray(_over_maps(levels, S, rate)[:, 0, 1]))
        error.append(np.asarray(S.error))
    levels, S, _ = row(splitting)
    width_rate = [np.asarray(_over_maps(levels, S, g)[:, 0, 1]) for g in rates]

    def law(g, d, w):
        return coherence_law(g, d, w, _PARAMETERS["beta"], _PARAMETERS["mass"])

    # matched at the smallest rate and width, where Eq. (24) holds
    prefactor = abs(width_rate[0][0]) / law(rates[0], splitting, widths[0])
    column = (slice(None), None)
    over_rate, over_width, below = ("splitting", "rate"), ("splitting", "width"), ("rate", "width")
    return dataset(
        "Steady coherence (Fig. 3)",
        {
            "rho01_rate_splitting": (over_rate, np.stack(rate_splitting)),
            "rho01_width_splitting": (over_width, np.stack(width_splitting)),
            "rho01_width_rate": (below, np.stack(width_rate)),
            "law_rate_splitting": (over_rate, law(rates, splittings[column], width)),
            "law_width_splitting": (over_width, law(rate, splittings[column], widths)),
            "law_width_rate": (below, law(rates[column], splitting, widths)),
            "prefactor": ((), prefactor),
            "map_error": (over_width, np.stack(error)),
        },
        {"rate": rates, "splitting": splittings, "width": widths},
        fixed_rate=rate,
        fixed_splitting=splitting,
        fixed_width=width,
        **_parameters("rate", "splitting", "width"),
    )


@eqx.filter_jit
def _over_widths(splitting, widths, amplitudes):
    """The scattering maps of one row, in a loop, since each map is a batch of nodes already."""

    def one(width):
        return scattering_map(*model(splitting=splitting, width=width), amplitudes=amplitudes)

    return jax.lax.map(one, widths)


def _steady(levels, S, rate):
    return solve_steady_state(System(levels), Collisions(S, rate)).rho


_over_rates = jax.jit(jax.vmap(_steady, (None, None, 0)))
_over_maps = jax.jit(jax.vmap(_steady, (None, 0, None)))


def _check_models(amplitudes):
    require(
        isinstance(amplitudes, Mapping)
        and len(amplitudes) > 0
        and all(isinstance(each, AbstractAmplitudes) for each in amplitudes.values()),
        "Argument `amplitudes` must be collision models by name, such as {'exact': jaxres.Exact()}, but is "
        f"{amplitudes!r}.",
    )


def _stack(paths, name, shape):
    values = np.stack([getattr(path, name) for path in paths])
    return values.reshape(*shape, *values.shape[2:])


def _gibbs():
    return gibbs_state(model()[0], _PARAMETERS["beta"])


def _parameters(*varied):
    """The parameters of the model that are not varied in a figure."""
    return {name: value for name, value in _PARAMETERS.items() if name not in varied}


_PARAMETERS = {name: p.default for name, p in inspect.signature(model).parameters.items()}
