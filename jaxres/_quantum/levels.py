"""Differences of energy levels. All differences of levels in this package are computed here.

Thresholds, panels, rotations and degeneracies depend on differences of levels and on their signs, which must be
consistent: e_j − e_j is 0, and e_k − e_j is the same number wherever it is used, with the sign given by the order of
the levels. A compiled program does not guarantee this. If levels are computed as w·l_j, for instance, the compiler may
evaluate w·l_k − w·l_j as one fused multiply-add, which rounds the two products differently, and may do so in one loop
but not in another. So the levels are first `pinned`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics.batched import linear
from .._numerics.safe import rounding


@jax.custom_jvp
def pinned(levels: Float[Array, " N"]) -> Float[Array, " N"]:
    """The levels themselves, rounded once: the compiler cannot fuse their computation with their use.

    The levels pass through a sort by their indices, which are in order already. XLA never fuses a sort, and stores its
    result in memory. (An optimisation barrier does not help: on CPUs XLA drops it before it fuses loops.) One or two
    levels have at most one difference, which cannot be inconsistent with another, so they are not sorted.
    """
    if levels.shape[0] <= 2:
        return levels
    places = jax.lax.iota(np.int32, levels.shape[0])
    return jax.lax.sort((places, levels), num_keys=1)[1]


@pinned.defjvp
def _pinned_jvp(primals, tangents):
    return pinned(*primals), tangents[0]


def gaps(levels: Float[Array, " N"]) -> Float[Array, "N N"]:
    """The matrix with entries [j, k] = e_j − e_k, exactly 0 on the diagonal and exactly antisymmetric."""
    levels = pinned(levels)
    below = jnp.tril(levels[:, None] - levels[None], -1)
    return below - below.T


def splittings(levels: Float[Array, " N"]) -> Float[Array, " P"]:
    """The differences e_k − e_j for j < k, row by row: the numbers of `gaps`, not negative for ascending levels."""
    rows, columns = np.triu_indices(levels.shape[0], 1)
    table = np.eye(levels.shape[0])
    return linear(pinned(levels), table[columns] - table[rows])


def ascending(levels: Float[Array, " N"]) -> Bool[Array, ""]:
    """Whether the levels ascend; neighbours are compared, since the sign of a difference depends on its rounding."""
    return jnp.all(levels[1:] >= levels[:-1])


def equal_levels(levels: Float[Array, " N"]) -> Bool[Array, "N N"]:
    """Whether the levels j and k have the same energy, up to `rounding`."""
    return jnp.abs(gaps(levels)) <= rounding(levels)


def same_gap(levels: Float[Array, " N"]) -> Bool[Array, " M M"]:
    """Whether two transitions, (j', j) and (k', k) row by row, have the same energy, up to `rounding`.

    An exact comparison would fail for degenerate or equally spaced levels, whose gaps are differences of rounded
    numbers.
    """
    gap = gaps(levels).reshape(-1)
    return jnp.abs(gap[:, None] - gap[None, :]) <= rounding(levels)
