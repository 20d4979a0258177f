"""The integrals of the map of two levels by one loop over the nodes; `energy_integral` has any number of levels.

Everything is real arithmetic in fixed tables. The four transitions j → j' are numbered as in TRANSITIONS, as (j', j).
Their incoming momenta are only three, numbered as in MOMENTUM: k, the outgoing one, if the level stays; p of 1 → 0; q
of 0 → 1. The map is the Hermitian matrix of all pairs of transitions, integrals of a conj(b) ρ_U(p_a, p_b) dk: 4
diagonal entries, and the 6 of PAIRS above the diagonal.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Complex, Float

from .._numerics.batched import linear
from .._numerics.elementary import conjugate, sin_cos, times
from .._numerics.one_loop import one_loop
from .._numerics.safe import safe_sqrt
from .._quantum.levels import same_gap
from .energy_grid import entries

TRANSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))
MOMENTUM = (0, 1, 2, 0)
PAIRS = tuple(itertools.combinations(range(4), 2))
#: each two of the momenta, with the first two transitions that have these
MOMENTA = {(0, 1): (0, 1), (0, 2): (0, 2), (1, 2): (1, 2)}


def two_level_moments(grid, amplitudes, layers, levels, packet):
    """Real numbers, shape (16, 4): the diagonal, then Re and Im of PAIRS, each by the rules of the grid."""
    energies = one_loop(lambda *x: x, *(grid.incoming(*TRANSITIONS[i]) for i in range(3)))
    exits = _exits(amplitudes, energies, grid, layers, levels, packet.mass)
    momenta = [safe_sqrt(2 * packet.mass * jnp.abs(x)) for x in energies]
    same = same_gap(levels)
    same = {pair: same[i][None] for pair, i in MOMENTA.items()}
    step = grid.stretch * (packet.mass / momenta[0])  # dk
    particle = momenta, step, [x > 0 for x in energies[1:]], same
    if packet.log_envelope() is None:
        rows = one_loop(_joined, exits, *_densities(packet, *particle))
    else:
        rows = _two_level_rows(exits, packet, particle)
    return _weigh(jnp.stack(rows), grid), 0.0


def _exits(amplitudes, energies, grid, layers, levels, mass):
    """By transition, the amplitudes into each exit of the particle as pairs (real, imaginary)."""
    exits = amplitudes.two_level_exits(energies, grid.beyond, layers, levels, mass)
    if exits is not None:
        (stay_0, stay_1), (flip_0, flip_1) = exits
        return [stay_0, flip_0, flip_1, stay_1]
    energy, from_1, from_0 = energies
    kinetic = jnp.stack([jnp.stack([energy, from_1]), jnp.stack([from_0, energy])])
    a = amplitudes.outgoing(kinetic, grid.beyond, layers, levels, mass)
    real, imag = jnp.real(a), jnp.imag(a)
    return [
        [(x[out, into], y[out, into]) for x, y in zip(real, imag, strict=True)]
        for out, into in TRANSITIONS
    ]


def _weigh(rows, grid):
    """`energy_integral.weigh`, column by column: for so few rows a product with one column is far cheaper."""
    shares, ends = (jnp.asarray(x, rows.dtype) for x in (grid.shares, grid.end_shares))
    fixed, coarse, ends = jax.lax.stop_gradient((rows, shares[1:], ends))
    left_out = entries(fixed, grid.outermost) @ ends
    columns = rows @ shares[0], fixed @ coarse[0], fixed @ coarse[1], left_out
    return jnp.stack(columns, axis=-1)


def _rows_in_one_loop(amplitudes, packet, particle):
    def rows(amplitudes, packet, particle):
        return _joined(amplitudes, *_densities(packet, *particle))

    return one_loop(rows, amplitudes, packet, particle)


_two_level_rows = jax.custom_jvp(_rows_in_one_loop)


def _two_level_rows_jvp(primals, tangents):
    rows = _two_level_rows(*primals)
    leaves, structure = jax.tree.flatten(primals)
    tangents = dict(enumerate(jax.tree.leaves(tangents)))
    tangents = {i: t for i, t in tangents.items() if not isinstance(t, SymbolicZero)}
    packet = jax.tree.unflatten(structure, range(len(leaves)))[1]
    if tangents.keys() <= set(jax.tree.leaves(packet)) - {packet.mass}:
        # Each row is proportional to one ρ_U(p, q). So its derivative with respect to the packet is itself times that
        # of ln ρ_U: no amplitude, no exponential and no overlap is needed again.
        change = jax.tree.map(lambda i: tangents.get(i, jnp.zeros_like(leaves[i])), packet)
        return rows, one_loop(_changes_by_packet, rows, primals[1], primals[2][0], change)

    def function(moving):
        arguments = (moving.get(i, x) for i, x in enumerate(leaves))
        return _rows_in_one_loop(*jax.tree.unflatten(structure, arguments))

    return rows, jax.jvp(function, ({i: leaves[i] for i in tangents},), (tangents,))[1]


_two_level_rows.defjvp(_two_level_rows_jvp, symbolic_zeros=True)


def _changes_by_packet(rows, packet, momenta, change):
    """The derivative of the rows along a change of the packet with the same mass."""

    def of_log(first, second):
        def function(packet):
            return packet.log_envelope()(packet, first, second)

        return jax.jvp(function, (packet,), (change,))[1]

    own = [of_log(x, x) for x in momenta]
    joint = {(i, j): of_log(momenta[i], momenta[j]) for i, j in MOMENTA}
    # ρ_U(p, q) has the phase e^{−i(p − q)x₀}, that of p relative to k is
    turns = [change.position * (momenta[0] - x) for x in momenta[1:]]

    def factor(a, b):
        """The change of the logarithm for two transitions, real and imaginary part."""
        i, j = MOMENTUM[a], MOMENTUM[b]
        if i == j:
            return own[i], 0
        if i == 0:
            return joint[i, j], -turns[j - 1]
        if j == 0:
            return joint[j, i], turns[i - 1]
        return joint[i, j], turns[i - 1] - turns[j - 1]

    pairs = zip(PAIRS, zip(rows[4:10], rows[10:], strict=True), strict=True)
    upper = [times(z, factor(*pair)) for pair, z in pairs]
    diagonal = [x * own[i] for x, i in zip(rows[:4], MOMENTUM, strict=True)]
    return diagonal + [real for real, _ in upper] + [imag for _, imag in upper]


def _densities(packet, momenta, dk, open_, same):
    """ρ_U dk/dε of each momentum with itself, of MOMENTA without the phase of the position, and the angles of that."""
    density, position = packet.centred()
    is_open = [True, *open_]
    own = [
        dk * packet.distribution(momenta[0]),
        *(
            jnp.where(here, dk * packet.distribution(x), 0)
            for x, here in zip(momenta[1:], open_, strict=True)
        ),
    ]
    joint = {}
    for (i, j), equal in same.items():
        both = is_open[j] if i == 0 else is_open[i] & is_open[j]
        rho = jnp.where(both, dk * density(momenta[i], momenta[j], equal), 0)
        joint[i, j] = (jnp.real(rho), jnp.imag(rho)) if jnp.iscomplexobj(rho) else (rho,)
    return (
        own,
        joint,
        [] if position is None else [position * (momenta[0] - x) for x in momenta[1:]],
    )


def _joined(exits, own, joint, angles):
    """Σ over exits of ρ_U a conj(b) for the pairs of transitions."""
    if angles:
        phases = [sin_cos(angle)[::-1] for angle in angles]
        exits = [
            a if i == 0 else [times(x, phases[i - 1]) for x in a]
            for a, i in zip(exits, MOMENTUM, strict=True)
        ]

    def rho(a, b):
        i, j = MOMENTUM[a], MOMENTUM[b]
        if i == j:
            return (own[i],)
        return joint[i, j] if i < j else conjugate(joint[j, i])

    upper = [times(_overlap(exits[a], exits[b]), rho(a, b)) for a, b in PAIRS]
    diagonal = [
        sum(x * x + y * y for x, y in a) * own[i] for a, i in zip(exits, MOMENTUM, strict=True)
    ]
    return diagonal + [real for real, _ in upper] + [imag for _, imag in upper]


def _overlap(x, y):
    """Σ over exits of x conj(y)."""
    products = [times(a, conjugate(b)) for a, b in zip(x, y, strict=True)]
    return tuple(sum(part[1:], start=part[0]) for part in zip(*products, strict=True))


def two_level_tensor(values: Float[Array, " 16"]) -> Complex[Array, "2 2 2 2"]:
    """S[j', k', j, k] from the matrix of pairs of transitions: diagonal, real and imaginary parts above it."""
    rows, columns = np.transpose(PAIRS)
    index, imaginary, sign = np.diag(np.arange(4)), np.zeros((4, 4), int), np.zeros((4, 4), int)
    index[rows, columns] = index[columns, rows] = 4 + np.arange(6)
    imaginary[rows, columns] = imaginary[columns, rows] = 10 + np.arange(6)
    sign[rows, columns], sign[columns, rows] = 1, -1
    index, imaginary, sign = (
        x.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(-1) for x in (index, imaginary, sign)
    )
    one = np.eye(16)
    real, imag = linear(values, one[index]), linear(values, sign[:, None] * one[imaginary])
    return jax.lax.complex(real, imag).reshape(2, 2, 2, 2)
