"""The integrals of the map of two levels, as `energy_integral` has them for any number, by one loop over the nodes."""

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
from .energy_integral import weigh


def two_level_moments(grid, amplitudes, layers, levels, packet):
    """Real numbers, shape (16, 4): of the matrix in (j'j), (k'k) its diagonal, then the rest above that."""
    # the kinetic energies of 0 → 0 and 1 → 1 (both the outgoing one), of 1 → 0 and of 0 → 1
    energies = one_loop(lambda *x: x, *grid.transitions)
    amplitudes = amplitudes.two_level_exits(energies, grid.beyond, layers, levels, packet.mass)
    momenta = [safe_sqrt(2 * packet.mass * jnp.abs(x)) for x in energies]
    same = same_gap(levels)  # of the transitions 00, 01, 10, 11
    same = [same[i][None] for i in ((0, 1), (0, 2), (1, 2))]
    step = grid.stretch * (packet.mass / momenta[0])  # dk
    particle = momenta, step, [x > 0 for x in energies[1:]], same
    if packet.log_envelope() is None:
        rows = one_loop(_joined, amplitudes, *_densities(packet, *particle))
    else:
        rows = _two_level_rows(amplitudes, packet, particle)
    rows = jnp.stack(rows)
    shares, ends = (jnp.asarray(x, rows.dtype) for x in (grid.shares, grid.end_shares))
    return weigh(rows, shares, ends, grid.outermost), 0.0


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
    k, p, q = momenta

    def of_log(first, second):
        def function(packet):
            return packet.log_envelope()(packet, first, second)

        return jax.jvp(function, (packet,), (change,))[1]

    kk, pp, qq, kp, kq, pq = (
        of_log(*pair) for pair in ((k, k), (p, p), (q, q), (k, p), (k, q), (p, q))
    )
    # ρ_U has the phase e^{−i(p − q)x₀}
    to_p, to_q, none = change.position * (k - p), change.position * (k - q), 0
    factors = (
        (kp, -to_p), (kq, -to_q), (kk, none), (pq, to_p - to_q), (kp, to_p), (kq, to_q)
    )  # fmt: skip
    upper = [
        times(z, factor)
        for z, factor in zip(zip(rows[4:10], rows[10:], strict=True), factors, strict=True)
    ]
    diagonal = [x * y for x, y in zip(rows[:4], (kk, pp, qq, kk), strict=True)]
    return diagonal + [real for real, _ in upper] + [imag for _, imag in upper]


def _densities(packet, momenta, dk, open_, same):
    """ρ_U(p, q) dk/dε of two transitions for p = q; p ≠ q, but for the phase of the packet's position; that phase."""
    k, p, q = momenta
    open_p, open_q = open_
    density, position = packet.centred()
    single = [
        dk * packet.distribution(k),
        jnp.where(open_p, dk * packet.distribution(p), 0),
        jnp.where(open_q, dk * packet.distribution(q), 0),
    ]
    pairs = (k, p, open_p, same[0]), (k, q, open_q, same[1]), (p, q, open_p & open_q, same[2])
    double = []
    for first, second, both, equal in pairs:
        rho = jnp.where(both, dk * density(first, second, equal), 0)
        double.append((jnp.real(rho), jnp.imag(rho)) if jnp.iscomplexobj(rho) else (rho,))
    return single, double, [] if position is None else [position * (k - p), position * (k - q)]


def _joined(amplitudes, single, double, angles):
    """Σ over exits of ρ_U a conj(a) for the pairs of transitions."""
    (s0, s1), (f0, f1) = amplitudes
    if angles:
        phases = [sin_cos(angle)[::-1] for angle in angles]
        f0, f1 = (
            [times(x, phase) for x in flip] for flip, phase in zip((f0, f1), phases, strict=True)
        )
    (kk, pp, qq), (kp, kq, pq) = single, double
    diagonal = (s0, kk), (f0, pp), (f1, qq), (s1, kk)
    upper = (
        (s0, f0, kp),
        (s0, f1, kq),
        (s0, s1, (kk,)),
        (f0, f1, pq),
        (f0, s1, conjugate(kp)),
        (f1, s1, conjugate(kq)),
    )
    upper = [times(_overlap(x, y), rho) for x, y, rho in upper]
    diagonal = [sum(a * a + b * b for a, b in x) * rho for x, rho in diagonal]
    return diagonal + [real for real, _ in upper] + [imag for _, imag in upper]


def _overlap(x, y):
    """Σ over exits of x conj(y)."""
    products = [times(a, conjugate(b)) for a, b in zip(x, y, strict=True)]
    return tuple(sum(part[1:], start=part[0]) for part in zip(*products, strict=True))


def two_level_tensor(values: Float[Array, " 16"]) -> Complex[Array, "2 2 2 2"]:
    """S[j', k', j, k] from the diagonal of the matrix in (j'j), (k'k), the real and the imaginary parts above it."""
    rows, columns = np.triu_indices(4, 1)
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
