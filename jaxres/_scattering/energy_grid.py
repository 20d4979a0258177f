r"""The fixed grid on which Eq. (17) is integrated.

With the outgoing kinetic energy ε as variable, all N⁴ entries of the map share one grid. The incoming momentum of the
transition j → j' is p = √(2m(ε + e_j' − e_j)), so the integrand has a square-root kink at ε = 0 and at every positive
difference of levels, τ = e_j − e_j' > 0. The grid is split there:

    0 ──panel──▶ τ_1 ──panel──▶ τ_2 … τ_P ──last panel──▶ ∞

Inside a panel the integrand is analytic in √(distance to each end). A substitution ε(t) that crowds nodes towards the
ends makes the plain trapezoid in t converge exponentially (double-exponential rule), or a polynomial in the square
roots makes Gauss–Legendre nodes do so.

Momenta near a threshold are differences ε − τ of nearly equal numbers. They are never formed by that subtraction: a
node is stored as its distance to the lower and to the upper end of its panel, both straight from the substitution.
"""

import abc
import math
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import as_count
from .._numerics.batched import linear
from .._quantum.levels import gaps, splittings


class Rule(NamedTuple):
    """Nodes and weights of one panel: a fixed table of numbers.

    On a finite panel of length ℓ the node is at ℓ·lower from its lower end and ℓ·upper from its upper end; on the
    last panel at scale·lower. The three rows of `weights` are the rule and two coarser ones on a half and a quarter
    of its nodes, which cost nothing and give the error estimate.
    """

    lower: np.ndarray
    upper: np.ndarray
    weights: np.ndarray


class Grid(eqx.Module):
    """Nodes in the outgoing kinetic energy ε, shared by all entries of the map: n of them, panel after panel.

    A node knows the `panel` that it is in, the edges of that panel, and its own distances from both, which come from
    the substitution: `edges` and `from_edges`, lower and upper. Each distance ε − τ from a threshold τ or another edge
    follows from these without cancellation. The edge's `rank` says on which side of it a panel lies: panels up to
    number `rank` are below. `gaps[j', j]` is e_j − e_j', where the transition j → j' opens (rank −2, below all panels,
    if that is not positive), and `away[j', r]` is v_r − e_j' for the kink v_r of the amplitudes.

    `stretch[n]` is the length of a node's panel, on the last one the scale. `shares[r, n]` is the weight in units of
    it, of the rule (r = 0) and of the two coarser ones. The rules leave out lengths at the ends of the panels, beside
    the `outermost` nodes: `end_shares`, in the same units, an error that all three have in common. Each finite panel
    has `nodes_between` nodes, the last one `nodes_above`; an empty panel keeps a length `tiny`. A `plain` grid has no
    other edges than differences of levels.
    """

    edges: tuple[Float[Array, " n"], Float[Array, " n"]]
    from_edges: tuple[Float[Array, " n"], Float[Array, " n"]]
    gaps: Float[Array, "N N"]
    away: Float[Array, "N R"]
    rank_of_gaps: Int[Array, "N N"]
    rank_of_away: Int[Array, "N R"]
    stretch: Float[Array, " n"]
    panel: np.ndarray
    shares: np.ndarray
    end_shares: np.ndarray
    tiny: Float[Array, ""]
    outermost: tuple[int, ...] = eqx.field(static=True)
    nodes_between: int = eqx.field(static=True)
    nodes_above: int = eqx.field(static=True)
    plain: bool = eqx.field(static=True)

    @property
    def kinetic(self) -> Float[Array, "N N n"]:
        """[j', j, n]: ε_n + e_j' − e_j, the incoming kinetic energy of j → j', negative where that channel is closed.

        The diagonal is ε_n itself.
        """
        return jax.vmap(jax.vmap(self._distance))(self.gaps, self.rank_of_gaps)

    @property
    def beyond(self) -> Float[Array, "N R n"]:
        """[j', r, n]: ε_n + e_j' − v_r, the distance of the total energy from kink r of the amplitudes."""
        return jax.vmap(jax.vmap(self._distance))(self.away, self.rank_of_away)

    def incoming(self, out: int, into: int) -> Float[Array, " n"]:
        """One row of `kinetic`, of the transition to level `out` from level `into`, computed by itself."""
        return self._distance(self.gaps[out, into], self.rank_of_gaps[out, into])

    def _distance(self, edge: Float[Array, ""], rank: Int[Array, ""]) -> Float[Array, " n"]:
        """ε − edge at all nodes.

        The side is decided by rank, not by value: in the empty panel below a threshold that coincides with another one
        its channel is closed, and so the panel counts when its length is differentiated. The distance between an edge
        and itself is not computed as a difference either: its derivatives may be huge.
        """
        (lower, upper), (from_lower, from_upper) = self.edges, self.from_edges
        above = self.panel - rank
        return jnp.where(
            above > 0,
            jnp.where(above == 1, 0, lower - edge) + from_lower,
            -(jnp.where(above == 0, 0, edge - upper) + from_upper),
        )

    def weights(self) -> Float[Array, "3 n"]:
        """dε of the rule and of the two coarser ones."""
        return jnp.asarray(self.shares, self.stretch.dtype) * self.stretch[None]

    def ends(self) -> Float[Array, " K"]:
        """The lengths left out beside the `outermost` nodes."""
        stretch = self.stretch[np.array(self.outermost)]
        return jnp.asarray(self.end_shares, stretch.dtype) * stretch


class AbstractQuadrature(eqx.Module):
    r"""A rule for the energy integral of Eq. (17): nodes for the panels between thresholds, and above the last one.

    A kind of rule is a subclass, an `equinox.Module` whose fields are static, with three methods. `finite_rule(N)` and
    `last_rule()` each return three NumPy arrays (a `Rule`), fixed tables of numbers:

    | | shape | finite panel of length ℓ | last panel, in units of the packet's energy scale |
    |---|---|---|---|
    | `lower` | (n,) | ε = lower end + ℓ·lower | ε = last threshold + scale·lower |
    | `upper` | (n,) | ε = upper end − ℓ·upper; near 1 − lower, but free of cancellation | 0 |
    | `weights` | (3, n) | of the rule, of a rule on half of its nodes, of a rule on a quarter of them | the same |

    Nodes ascend and lie inside the panel, 0 < lower and 0 < upper. The integrand is analytic in √(distance to each
    end), and nodes crowd there. The two coarser rules have the weight 0 at the nodes they do not use; `error` estimates
    the error of the map from them. `refined()` returns the same rule with twice as many nodes, which `tol=` needs.

    !!! example
        The midpoint rule in u, with ε = ℓ sin²(πu/2) and, above, ε = (6u)²:

        >>> import numpy as np
        >>> class Midpoint(jr.AbstractQuadrature):
        ...     nodes: int = 64
        ...
        ...     def _midpoints(self):
        ...         weights = np.zeros((3, self.nodes))
        ...         for row, step in enumerate((1, 2, 4)):
        ...             weights[row, step // 2 :: step] = step / self.nodes
        ...         return (np.arange(self.nodes) + 0.5) / self.nodes, weights
        ...
        ...     def finite_rule(self, levels):
        ...         u, w = self._midpoints()
        ...         a = np.pi / 2 * u
        ...         return np.sin(a) ** 2, np.cos(a) ** 2, np.pi / 2 * np.sin(2 * a) * w
        ...
        ...     def last_rule(self):
        ...         u, w = self._midpoints()
        ...         return (6 * u) ** 2, 0 * u, 72 * u * w
        ...
        ...     def refined(self):
        ...         return Midpoint(2 * self.nodes)
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, reservoir, quadrature=Midpoint())
        >>> exact = jr.scattering_map(system, reservoir)
        >>> bool(jnp.max(jnp.abs(S.tensor - exact.tensor)) < 1e-3)
        True
    """

    @abc.abstractmethod
    def finite_rule(self, levels: int) -> Rule:
        """The rule on a panel between two thresholds of so many levels, in units of its length."""

    @abc.abstractmethod
    def last_rule(self) -> Rule:
        """The rule above the last threshold, in units of the packet's energy scale."""

    @abc.abstractmethod
    def refined(self) -> "AbstractQuadrature":
        """The same rule with twice as many nodes."""

    def error(
        self, fine: Float[Array, "*M"], half: Float[Array, "*M"], quarter: Float[Array, "*M"]
    ) -> Float[Array, ""]:
        r"""An estimate of the largest |fine − exact| from the differences to the two coarser rules.

        An exponentially convergent rule has the error $A q^{n}$. Then d₁ = max|fine − half| ≈ A q^{n/2} and
        d₂ = max|fine − quarter| ≈ A q^{n/4}, and the error of `fine` is about d₁ (d₁/d₂)². The estimate is ten times
        that. A rule that converges otherwise overrides this method.
        """
        d1, d2 = jnp.max(jnp.abs(fine - half)), jnp.max(jnp.abs(fine - quarter))
        ratio = jnp.where(d2 > 0, d1 / jnp.where(d2 > 0, d2, 1), 1)
        return 10 * d1 * jnp.minimum(ratio, 1) ** 2


def _nodes(name: str, default: Any) -> Any:
    """The field of a number of nodes; more than a million are a mistake."""

    def converter(x):
        return None if x is None and default is None else as_count(name, x, 5, 10**6)

    return eqx.field(static=True, default=default, converter=converter)


class DoubleExponential(AbstractQuadrature):
    r"""The trapezoidal rule after a double-exponential substitution (the default).

    Between two thresholds: $ε = ℓ/(1 + e^{-1.6\sinh t})$ (tanh-sinh). Above the last one:
    $ε = e^{t - e^{-t}/2}$ in units of the packet's energy scale. Doubling the nodes doubles the number of right digits.

    **Arguments:**

    - `nodes_between`: nodes on each panel between two thresholds. By default 48 for two levels. N ≥ 3 levels have
      resonances between their thresholds, of a width that does not depend on N, while the N(N − 1)/2 panels get
      shorter with N. 384/N nodes, but at least 16 and at most 128, keep the total near 192 N.
    - `nodes_above`: nodes above the last threshold.
    - `finer`: a factor on the number of nodes that `nodes_between` has by default.

    Source: H. Takahasi and M. Mori, Publ. RIMS 9, 721 (1974).

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, reservoir, quadrature=jr.DoubleExponential(nodes_between=96, nodes_above=64))
        >>> bool(S.error < 1e-12)
        True
    """

    nodes_between: int | None = _nodes("nodes_between", None)
    nodes_above: int = _nodes("nodes_above", 32)
    finer: int = eqx.field(
        static=True, default=1, converter=lambda x: as_count("finer", x, 1, 10**4)
    )

    def finite_rule(self, levels):
        if self.nodes_between is not None:
            return _tanh_sinh(self.nodes_between)
        return _tanh_sinh(self.finer * (48 if levels <= 2 else min(max(384 // levels, 16), 128)))

    def last_rule(self):
        return _exponential(self.nodes_above)

    def refined(self):
        if self.nodes_between is None:
            return DoubleExponential(nodes_above=2 * self.nodes_above, finer=2 * self.finer)
        return DoubleExponential(
            nodes_between=2 * self.nodes_between, nodes_above=2 * self.nodes_above
        )


class GaussLegendre(AbstractQuadrature):
    r"""Gauss–Legendre nodes in the variable that removes the square roots.

    Between two thresholds: $ε = ℓ\sin^2(πu/2)$. Above the last one: $ε = (6.2\,u)^2$ in units of the packet's energy
    scale, beyond which a thermal packet has no weight at double precision.

    **Arguments:** as for `DoubleExponential`.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> a = jr.scattering_map(system, reservoir, quadrature=jr.GaussLegendre(nodes_between=40, nodes_above=96))
        >>> b = jr.scattering_map(system, reservoir, quadrature=jr.DoubleExponential(nodes_between=96, nodes_above=64))
        >>> bool(jnp.max(jnp.abs(a.tensor - b.tensor)) < 1e-12)
        True
    """

    nodes_between: int = _nodes("nodes_between", 20)
    nodes_above: int = _nodes("nodes_above", 40)

    def finite_rule(self, levels):
        del levels
        u, weights = _legendre(self.nodes_between)
        angle = np.pi / 2 * u
        return Rule(np.sin(angle) ** 2, np.cos(angle) ** 2, weights * np.pi / 2 * np.sin(2 * angle))

    def last_rule(self):
        u, weights = _legendre(self.nodes_above)
        x = (_REACH * u) ** 2
        return Rule(x, np.zeros_like(x), weights * 2 * _REACH**2 * u)

    def refined(self):
        return GaussLegendre(nodes_between=2 * self.nodes_between, nodes_above=2 * self.nodes_above)


#: e^{−6.2²} = 2e-17: a thermal packet has fallen below rounding there
_REACH = 6.2


def _trapezoid(n: int, step: float) -> np.ndarray:
    """Weights of the trapezoidal rule on all of n equidistant nodes, on every second, on every fourth."""
    with jax.ensure_compile_time_eval():
        unit = jnp.eye(n)
        rows = [k * np.asarray(jnp.trapezoid(unit[:, ::k], axis=1)) for k in (1, 2, 4)]
    return step * np.stack(rows).astype(np.float64)


# All constants of the two substitutions were found by trial on the reference cases (`golden.json`); the error estimate
# does not rely on them.

#: The usual tanh-sinh rule has π here. A smaller number stretches the rule: fewer nodes crowd at the ends, and more
#: stand in the middle of the panel, where resonances are.
_STRETCH = 1.6

#: The nodes reach out to e^{−reach} in the distance to a threshold, and to the energy where a thermal packet has fallen
#: to e^{−reach}. Beyond, as much is left out as the rule's own error with that many nodes is: e^{−10} (finite panel) or
#: e^{−16} (last panel) for very few nodes, a factor e^{−1/3} less with each node, and rounding, e^{−36}, at last.
_LEAST_BETWEEN, _LEAST_ABOVE, _ROUNDING = 10.0, 16.0, 36.0


def _reach(n: int, least: float) -> float:
    return min(least + n / 3, _ROUNDING)


@lru_cache(maxsize=64)
def _tanh_sinh(n: int) -> Rule:
    """The rule u = 1/(1 + e^{−1.6 sinh t})."""
    end = math.asinh(_reach(n, _LEAST_BETWEEN) / _STRETCH)
    t = np.linspace(-end, end, n)
    y = _STRETCH * np.sinh(t)
    lower, upper = 1 / (1 + np.exp(-y)), 1 / (1 + np.exp(y))
    return Rule(lower, upper, _STRETCH * np.cosh(t) * lower * upper * _trapezoid(n, t[1] - t[0]))


@lru_cache(maxsize=64)
def _exponential(n: int) -> Rule:
    """X = exp(t − e^{−t}/2)."""
    reach = _reach(n, _LEAST_ABOVE)
    start = -1.0
    for _ in range(50):  # Newton: t − e^{−t}/2 = −reach
        start -= (start - math.exp(-start) / 2 + reach) / (1 + math.exp(-start) / 2)
    end = math.log(reach)
    end += math.exp(-end) / 2
    t = np.linspace(start, end, n)
    x = np.exp(t - np.exp(-t) / 2)
    return Rule(x, np.zeros_like(x), x * (1 + np.exp(-t) / 2) * _trapezoid(n, t[1] - t[0]))


@lru_cache(maxsize=64)
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre on [0, 1], and interpolatory rules on every second and every fourth of its nodes."""
    x, w = np.polynomial.legendre.leggauss(n)
    rows = [w / 2]
    for k in (2, 4):
        chosen = np.arange(n)[(n - 1) % k // 2 :: k]
        moments = np.zeros(len(chosen))
        moments[0] = 1.0  # ∫_0^1 P_l(2u − 1) du
        part = np.linalg.solve(
            np.polynomial.legendre.legvander(x[chosen], len(chosen) - 1).T, moments
        )
        row = np.zeros(n)
        row[chosen] = part
        rows.append(row)
    return (1 + x) / 2, np.stack(rows)


#: so many panels are written out
FEW = 4


def _sorted_edges(
    levels: Float[Array, " N"], further: Float[Array, " R"]
) -> tuple[Float[Array, " P"], Int[Array, "N N"], Int[Array, " R"]]:
    """The thresholds e_j − e_j' > 0 and `further` edges, ascending, and the places of both.

    Thresholds have theirs at [j', j] (−2 where j ≤ j').

    Equal ones stand in the order that they take as soon as the levels, which ascend, are no longer equal: the pair
    whose indices are closer comes first.
    """
    N = levels.shape[0]
    rows, columns = np.triu_indices(N, 1)
    nearest = np.argsort(columns - rows, kind="stable")
    rows, columns = rows[nearest], columns[nearest]
    thresholds = linear(splittings(levels), np.eye(len(rows))[nearest])
    thresholds = jnp.concatenate([thresholds, jnp.where(further > 0, further, 0)])
    rank = np.arange(thresholds.size)
    if thresholds.size > 1:
        # the values come out of the sort itself: computed again beside it, they might be rounded to another order
        places = jax.lax.iota(np.int32, thresholds.size)
        thresholds, order = jax.lax.sort((thresholds, places), num_keys=1)
        rank = jnp.argsort(order)
    own, others = rank[: len(rows)], rank[len(rows) :]
    return thresholds, jnp.full((N, N), -2).at[rows, columns].set(own), jnp.asarray(others)


class _Panels(NamedTuple):
    """The lower edge, the upper edge and the length of each panel, in ascending order. There are three cases.

    - A *finite* panel lies between two neighbouring thresholds, the first one between 0 and the lowest of them.
    - An *empty* panel lies between two that are equal (degenerate levels). It keeps a length `tiny`, far below
      rounding, so that no momentum is exactly zero and derivatives with respect to its length are right. Every finite
      panel is longer by as much, which changes nothing.
    - The *last* panel has no upper edge; its lower one stands for it. Its length is the packet's energy scale.
    """

    lower: Float[Array, " P"]
    upper: Float[Array, " P"]
    length: Float[Array, " P"]
    tiny: Float[Array, ""]

    @classmethod
    def between(cls, thresholds: Float[Array, " T"], scale: Float[Array, ""]) -> "_Panels":
        lower = jnp.concatenate([jnp.zeros(1, thresholds.dtype), thresholds])
        tiny = jnp.finfo(thresholds.dtype).eps ** 1.125 * scale
        length = jnp.append(thresholds - lower[:-1] + tiny, scale)
        return cls(lower, jnp.append(thresholds, lower[-1]), length, tiny)


def outgoing_grid(
    levels: Float[Array, " N"],
    scale: Float[Array, ""],
    rule: AbstractQuadrature,
    kinks: Float[Array, " R"],
    window: Float[Array, " W"],
) -> Grid:
    r"""The grid in the outgoing kinetic energy for a system with these levels and a packet of this energy scale.

    The panel edges are traced functions of the levels: a grid that ignores how thresholds move has wrong
    derivatives. The scale of the last panel only says where nodes stand; it is held fixed under differentiation,
    which changes a derivative by no more than the quadrature error.

    It is split besides at `kinks` v of the amplitudes, total energies in any order, ε = v − e_j'; and at the ends of
    the packet's `window`, incoming kinetic energies κ, ε = κ + e_j − e_j'. What is negative or NaN, or lies where the
    packet has no weight, makes an empty panel.
    """
    dtype = levels.dtype
    scale = jax.lax.stop_gradient(scale)
    finite, last = Rule(*rule.finite_rule(levels.shape[0])), Rule(*rule.last_rule())
    gap = gaps(levels).T  # [j', j]: the incoming channel opens at ε = e_j − e_j'
    shifts = jnp.concatenate([jnp.zeros(1, dtype), splittings(levels), -splittings(levels)])
    ends = jax.lax.stop_gradient(window[:, None] + shifts[None])
    end = jax.lax.stop_gradient(jnp.max(window, initial=_ROUNDING * scale) + levels[-1] - levels[0])
    away = kinks[None] - levels[:, None]  # [j', r]
    split = (away > 0) & (away < end)
    further = jnp.concatenate([jnp.where(split, away, 0).reshape(-1), ends.reshape(-1)])
    thresholds, rank, places = _sorted_edges(levels, further)
    places = jnp.where(split, places[: away.size].reshape(away.shape), -2)
    panels = _Panels.between(thresholds, scale)
    sizes = finite.lower.size, last.lower.size
    panel = np.repeat(np.arange(thresholds.size + 1), [sizes[0]] * thresholds.size + [sizes[1]])

    def nodes(values, finite, last):
        """For each node, panel after panel, the value of its panel times a number of its own."""
        if values.size <= FEW:  # compilers can compute it where it is used
            own = np.append(np.tile(finite, thresholds.size), last)
            shares = [np.where(panel == i, own, 0).astype(dtype) for i in range(values.size)]
            return sum((values[i] * x for i, x in enumerate(shares)), start=jnp.zeros((), dtype))
        finite, last = jnp.asarray(finite, dtype), jnp.asarray(last, dtype)
        return jnp.concatenate([(values[:-1, None] * finite[None]).reshape(-1), values[-1] * last])

    ones = np.ones(sizes[0]), np.ones(sizes[1])
    from_lower = nodes(panels.length, finite.lower, last.lower)
    from_upper = nodes(panels.length, finite.upper, 0 * last.lower)

    # The first and the last node of every panel. Above the very last one e^{−ε/scale} has an integral of one scale.
    size, start, n = sizes[0], sizes[0] * thresholds.size, panel.size
    outermost = *range(0, start, size), *range(size - 1, start, size), start, n - 1
    shares = np.repeat([finite.lower[0], finite.upper[-1]], thresholds.size)
    return Grid(
        edges=(nodes(panels.lower, *ones), nodes(panels.upper, *ones)),
        from_edges=(from_lower, from_upper),
        gaps=gap,
        away=away,
        rank_of_gaps=rank,
        rank_of_away=places,
        panel=panel,
        stretch=nodes(panels.length, *ones),
        shares=np.concatenate([np.tile(finite.weights, thresholds.size), last.weights], axis=1),
        end_shares=np.concatenate([shares, last.lower[:1], [1.0]]),
        tiny=panels.tiny,
        outermost=outermost,
        nodes_between=size,
        nodes_above=n - start,
        plain=further.size == 0,
    )


def entries(x: Float[Array, "*m n"], at: tuple[int, ...]) -> Float[Array, "*m K"]:
    """x[..., at] by slices, which are cheaper than a gather."""
    return x if len(at) == x.shape[-1] else jnp.stack([x[..., i] for i in at], axis=-1)
