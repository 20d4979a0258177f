"""Differences of energy levels: every one is made here.

Thresholds, panels, rotations and degeneracies all depend on differences of levels, and on their signs. Those have to be
consistent: e_j − e_j is 0, and e_k − e_j is one and the same number, of the sign that the order of the levels gives it,
wherever it is used. Inside a compiled program that is not so by itself. Where levels are computed, as w·l_j say, the
compiler may evaluate w·l_k − w·l_j as one fused multiply-add, which rounds the two products differently, and may do so
in one loop but not in another. So the levels are first `pinned`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._numerics.batched import linear
from .._numerics.safe import rounding


@jax.custom_jvp
def pinned(levels: Float[Array, " N"]) -> Float[Array, " N"]:
    """The levels themselves, rounded once: no compiler joins what computes them with what uses them.

    They pass through a sort by their places, which are in order already. A sort is never fused, and what comes out of
    it is in memory. (An optimisation barrier does not serve: on CPUs it is dropped before loops are fused.) Up to two
    levels have one difference at most, which no other has to be consistent with; they are spared the sort.
    """
    if levels.shape[0] <= 2:
        return levels
    places = jax.lax.iota(np.int32, levels.shape[0])
    return jax.lax.sort((places, levels), num_keys=1)[1]


@pinned.defjvp
def _pinned_jvp(primals, tangents):
    return pinned(*primals), tangents[0]


def gaps(levels: Float[Array, " N"]) -> Float[Array, "N N"]:
    """e_j − e_k as entry [j, k]; exactly 0 on the diagonal, and exactly antisymmetric."""
    levels = pinned(levels)
    below = jnp.tril(levels[:, None] - levels[None], -1)
    return below - below.T


def splittings(levels: Float[Array, " N"]) -> Float[Array, " P"]:
    """e_k − e_j for j < k, row by row: the same numbers as those of `gaps`, not negative for levels that ascend."""
    rows, columns = np.triu_indices(levels.shape[0], 1)
    table = np.eye(levels.shape[0])
    return linear(pinned(levels), table[columns] - table[rows])


def ascending(levels: Float[Array, " N"]) -> Bool[Array, ""]:
    """Whether the levels are in ascending order; a comparison of neighbours, not the sign of a difference."""
    return jnp.all(levels[1:] >= levels[:-1])


def equal_levels(levels: Float[Array, " N"]) -> Bool[Array, "N N"]:
    """Which pairs of levels have the same energy, up to `rounding`."""
    return jnp.abs(gaps(levels)) <= rounding(levels)


def same_gap(levels: Float[Array, " N"]) -> Bool[Array, " M M"]:
    """Whether two transitions, (j', j) and (k', k) row by row, have the same energy, up to `rounding`.

    The gaps of a degenerate or an equally spaced ladder are differences of rounded numbers, so they are not compared
    exactly.
    """
    gap = gaps(levels).reshape(-1)
    return jnp.abs(gap[:, None] - gap[None, :]) <= rounding(levels)
