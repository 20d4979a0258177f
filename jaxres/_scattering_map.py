r"""The change of the system's state in one collision (Eq. 17).

With the outgoing kinetic energy ε = k²/2m as variable,

    S[j',k',j,k] = Σ_α ∫_0^∞ dk  ρ_U(p, q)  a^α_{j'j} conj(a^α_{k'k}),
    p = √(2m(ε + e_j' − e_j)),   q = √(2m(ε + e_k' − e_k)),   a^α_{j'j} = s^α_{j'j}(ε + e_j') √(k/p),

where both incoming channels are open, and 0 elsewhere. This is Eq. (17) with its 1/√(pq) absorbed in the amplitudes,
which makes the integrand finite everywhere. Every node of the grid is a completely positive map: so is their sum.
"""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Complex, Float

from ._amplitudes import AbstractAmplitudes, Exact
from ._batched import UNROLLED, linear, pieces
from ._checks import check_instance, concrete, warn_of_single_precision
from ._elementary import conjugate, sin_cos, times
from ._one_loop import one_loop
from ._particle_states import MonochromaticBeam
from ._quadrature import AbstractQuadrature, DoubleExponential, outgoing_grid, splittings
from ._reservoir import Reservoir
from ._safe import safe_sqrt
from ._superoperator import Superoperator
from ._system import System
from ._unit import joint_system, trace_out

#: largest |S†(1) − 1| that is taken for a quadrature error and repaired
REPAIRABLE = 0.5

#: numbers that one array over the nodes may have, N⁴ for each node
AT_ONCE = 2**20


def scattering_map(
    system: System,
    bath: Reservoir,
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    quadrature: AbstractQuadrature = DoubleExponential(),
    tol: float | None = None,
    max_refinements: int = 5,
) -> Superoperator:
    r"""The scattering map S of one collision (Eq. 17): ρ after = S(ρ before).

    **Arguments:**

    - `system`, `bath`: what collides with what.
    - `amplitudes`: model of the collision, `Exact()` by default.
    - `quadrature`: rule for the energy integral, `DoubleExponential()` by default.
    - `tol`: refine the grid (doubling it at most `max_refinements` times) until the estimated error of every entry
      is below; outside jit only.

    **Returns:** `Superoperator`; `.error` is the estimated largest error of an entry of `.tensor`. It is completely
    positive if the packet's ρ_U is positive. For a model that conserves flux it preserves the trace to rounding on any
    grid: with M = S†(1), which differs from 1 by the quadrature error, the map returned is
    ρ → S(M^(−1/2) ρ M^(−1/2)).

    **Raises:** `ValueError` for arguments of the wrong kind, and, with `tol`, if the error estimate is still above it
    on the finest grid.

    !!! example
        >>> system, bath = jr.letter.model(splitting=0.6)
        >>> S = jr.scattering_map(system, bath)
        >>> S.tensor.shape
        (2, 2, 2, 2)
        >>> print(jnp.round(S.tensor[0, 0, 0, 0].real, 8), bool(S.error < 1e-8))
        0.95329197 True
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("bath", bath, Reservoir, "a jaxres.Reservoir")
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    check_instance(
        "quadrature", quadrature, AbstractQuadrature, "a rule such as jaxres.DoubleExponential()"
    )
    warn_of_single_precision(system.levels.dtype)
    S = _scattering_map(system, bath, amplitudes, quadrature)
    if tol is None:
        return S
    if not concrete(S):
        raise ValueError(
            "Argument `tol` must be None inside jit, grad or vmap: the number of nodes is static there."
        )
    for _ in range(max_refinements):
        if S.error <= tol:
            return S
        quadrature = quadrature.refined()
        S = _scattering_map(system, bath, amplitudes, quadrature)
    if S.error <= tol:
        return S
    raise ValueError(
        f"Argument `tol` must be reachable, but the estimated error is still {float(S.error):.2g} > {tol:g} with "
        f"{quadrature}. Raise `tol` or `max_refinements`, or look for a narrow resonance."
    )


@eqx.filter_jit
def _scattering_map(system, bath, amplitudes, quadrature):
    return collision_map(system, bath, amplitudes, quadrature)


def collision_map(
    system: System, bath: Reservoir, amplitudes: AbstractAmplitudes, quadrature: AbstractQuadrature
) -> Superoperator:
    """`scattering_map` without its checks, for use inside other pure functions."""
    if bath.unit is not None:
        return trace_out(system, bath.unit, joint_map(system, bath, amplitudes, quadrature))
    packet = bath.packet
    layers = bath.scatterer.layers(system)
    sides = {"left": [layers], "right": [layers.reversed()], "both": [layers, layers.reversed()]}[
        bath.incidence
    ]
    if layers.thicknesses.shape[0] == 1:  # its own mirror image
        sides = [layers]
    if isinstance(packet, MonochromaticBeam):
        maps = [_beam_map(amplitudes, side, system.levels, packet) for side in sides]
        tensor = jnp.mean(jnp.stack(maps), axis=0)
        dtype = system.levels.dtype
        error = jnp.asarray(jnp.finfo(dtype).eps * system.size**2, dtype)
    else:
        tensor, error = _integrated_map(amplitudes, quadrature, sides, system, packet)
    if not amplitudes.conserves_flux:
        return Superoperator(tensor, error, jnp.zeros_like(error))
    tensor, defect = restore_trace(tensor)
    return Superoperator(tensor, jnp.maximum(error, defect), defect)


def joint_map(
    system: System, bath: Reservoir, amplitudes: AbstractAmplitudes, quadrature: AbstractQuadrature
) -> Superoperator:
    """The map on system ⊗ unit, in the product of their energy eigenbases, the system's index first."""
    if bath.unit is None:
        raise ValueError("Argument `bath` must have a `unit`, but has None.")
    joint, place = joint_system(system, bath.unit)
    alone = eqx.tree_at(lambda b: b.unit, bath, None)
    S = collision_map(joint, alone, amplitudes, quadrature)
    tensor = jnp.einsum("ap,bq,pqrs,cr,ds->abcd", *(place,) * 2, S.tensor, *(place,) * 2)
    return Superoperator(tensor, S.error, S.trace_defect)


def _beam_map(amplitudes, layers, levels, packet):
    """Σ_α s_{j'j}(κ + e_j) conj(s_{k'k}(κ + e_k)) where the gaps are equal, κ = p₀²/2m; an integral over δ(p − p₀)."""
    kinetic = packet.momentum**2 / (2 * packet.mass)
    below = kinetic + (levels[None, :] - levels[:, None])  # [j', j]: κ + e_j − e_j', outgoing
    exits = amplitudes.matrices(below, kinetic + levels, layers, levels, packet.mass)
    own = np.arange(levels.shape[0])
    # for equal gaps the outgoing momenta are equal, so that what s⁺ is referenced to is no matter
    s = jnp.stack([exit_[:, own, own] for exit_ in exits])
    tensor = jnp.einsum("xaj,xbk->abjk", s, jnp.conj(s))
    N = levels.shape[0]
    same = _same_gap(levels).reshape(N, N, N, N).transpose(0, 2, 1, 3)
    return jnp.where(same, tensor, 0)


def _same_gap(levels: Float[Array, " N"]) -> Bool[Array, " M M"]:
    """Whether two transitions, (j', j) and (k', k) row by row, have one energy: to 64 roundings of the largest level.

    The gaps of a degenerate or an equally spaced ladder are differences of rounded numbers, so they are not compared
    exactly.
    """
    gap = (levels[None, :] - levels[:, None]).reshape(-1)
    room = 64 * jnp.finfo(levels.dtype).eps * jnp.max(jnp.abs(levels))
    return jnp.abs(gap[:, None] - gap[None, :]) <= room


def _integrated_map(amplitudes, quadrature, sides, system, packet):
    layers = sides[0]
    further = _edges(system.levels, packet, amplitudes.kinks(layers, system.levels, packet.mass))
    grid = outgoing_grid(system.levels, packet.energy_scale(), quadrature, further)
    moments, tensor = (
        (_two_level_moments, _two_level_tensor) if system.size == 2 else (_moments, _tensor)
    )
    sums = [moments(grid, amplitudes, side, system.levels, packet) for side in sides]
    values, inexact = (sum(x[1:], start=x[0]) / len(sides) for x in zip(*sums, strict=True))
    fine, half, quarter, left_out = jnp.moveaxis(values, -1, 0)
    if amplitudes.analytic:
        error = quadrature.error(fine, half, quarter)
    else:  # nothing can be counted on but that twice the nodes are better
        error = jnp.max(jnp.abs(fine - half))
    error = error + jnp.max(left_out) + inexact
    return tensor(fine), error


def _edges(levels, packet, kinks):
    """Where in ε to split besides the thresholds: kinks of the amplitudes, the packet's window.

    A kink at the total energy v stands at ε = v − e_j'; the incoming kinetic energy κ at ε = κ + e_j − e_j'.
    """
    window = packet.window()
    shifts = jnp.concatenate([jnp.zeros(1, levels.dtype), splittings(levels), -splittings(levels)])
    kinks = (kinks[:, None] - levels[None]).reshape(-1)
    window = jax.lax.stop_gradient((window[:, None] + shifts[None]).reshape(-1))
    if kinks.size:
        # where the packet has no weight there is nothing to split
        end = jnp.max(window, initial=36.0 * packet.energy_scale()) + levels[-1] - levels[0]
        kinks = jnp.where(kinks < jax.lax.stop_gradient(end), kinks, 0)
    return jnp.concatenate([kinks, window])


# The map is Hermitian, S[k', j', k, j] = conj S[j', k', j, k]: N⁴ real numbers. `_moments` gives them by the three
# rules, and the size of what these leave out, along the last axis; `_tensor` puts the map together from one rule. Here
# dk = (m/k) dε.


def _moments_with_table(grid, amplitudes, layers, levels, packet):
    """∫dε Σ_α (m/k) ρ_U(p, q) a_{j'j} conj(a_{k'k}), its real and imaginary parts for j' ≤ k', shape (2, …, N, N, 4).

    The amplitudes come from a table where the model has one; also given is by how much that may be wrong.
    """
    table = amplitudes.table(grid, layers, levels, packet)
    if table is None:
        return _moments_without_table(grid, amplitudes, layers, levels, packet)
    n = grid.stretch.size

    def part(where, outgoing, unit):
        return _sum_over_nodes(grid, where, outgoing, unit, levels, packet)

    between = part(
        slice(n - grid.last), lambda kinetic: table.between(kinetic, grid.finite), grid.finite
    )
    above = part(slice(n - grid.last, n), lambda _: table.above, grid.last)
    return between + above, table.error


_moments = eqx.filter_custom_jvp(_moments_with_table)


@_moments.def_jvp
def _moments_jvp(primals, tangents):
    # Beside nearly degenerate levels the derivative by their distance is peaked too sharply for a table.
    levels = tangents[3]
    function = _moments_with_table if levels is None else _moments_without_table
    return eqx.filter_jvp(function, primals, tangents)


def _moments_without_table(grid, amplitudes, layers, levels, packet):
    def outgoing(kinetic):
        return amplitudes.outgoing(kinetic, layers, levels, packet.mass)

    everywhere = slice(grid.stretch.size)
    values = _sum_over_nodes(grid, everywhere, outgoing, 1, levels, packet)
    return values, jnp.zeros((), levels.dtype)


def _sum_over_nodes(grid, where, outgoing, unit, levels, packet):
    """The part of the sum over some nodes of the grid.

    Where all at once would need too much memory they are taken piece by piece, of whole units of nodes, and of a piece
    one block (j', k') after the other.
    """
    outermost = np.isin(np.arange(grid.stretch.size), grid.outermost)[where]
    ends = jnp.zeros(grid.stretch.shape, levels.dtype)
    ends = ends.at[np.array(grid.outermost)].add(grid.ends())
    nodes = tuple(x[..., where] for x in (grid.kinetic, grid.weights(), ends))
    N, n = nodes[0].shape[1:]
    rows, columns = np.triu_indices(N)
    piece = min(n, max(AT_ONCE // N**4 // unit, -(-64 // unit)) * unit)
    count = -(-n // piece)
    most = max(AT_ONCE // (4 * N**2 * piece), 1)
    together = max(k for k in range(1, most + 1) if len(rows) % k == 0)  # blocks
    places = np.pad(outermost, (0, count * piece - n)).reshape(count, piece)
    at = tuple(np.flatnonzero(places.any(0)).tolist())
    same = _same_gap(levels).reshape((N,) * 4).transpose(0, 2, 1, 3)[rows, columns]
    density, position = packet.centred()

    @jax.checkpoint
    def add(total, part):
        kinetic, weights, ends = part
        ends = _entries(ends, at)
        a = outgoing(kinetic)
        open_ = kinetic > 0
        k = jnp.sqrt(2 * packet.mass * kinetic[0, 0])
        a = jnp.where(open_[None], a, 0) * jnp.sqrt(packet.mass / k)[None, None, None]
        p = jnp.sqrt(2 * packet.mass * jnp.where(open_, kinetic, 1))
        if position is not None:
            sine, cosine = sin_cos(p * position)
            a = a * jax.lax.complex(cosine, -sine)[None]
        real, imag = jnp.real(a), jnp.imag(a)

        @jax.checkpoint
        def block(pair):
            j, k, same = pair  # j', k'
            rho = density(*jnp.broadcast_arrays(p[j, :, None], p[k, None]), same[..., None])
            overlap = 0, 0
            for x in range(a.shape[0]):  # Σ over exits of a_{j'j} conj(a_{k'k})
                first, second = (
                    (real[x, j, :, None], imag[x, j, :, None]),
                    (real[x, k, None], -imag[x, k, None]),
                )
                overlap = tuple(map(operator.add, overlap, times(first, second)))
            rho = (jnp.real(rho), jnp.imag(rho)) if jnp.iscomplexobj(rho) else (rho,)
            return jnp.stack([_weigh(x, weights, ends, at) for x in times(overlap, rho)])

        pairs = (jnp.asarray(rows), jnp.asarray(columns), same)
        if together >= len(rows):
            return total + jax.vmap(block, out_axes=1)(pairs), None
        return total + jnp.moveaxis(jax.lax.map(block, pairs, batch_size=together), 0, 1), None

    total = jnp.zeros((2, len(rows), N, N, 4), levels.dtype)
    if count == 1:
        return add(total, nodes)[0]
    # nodes that fill the last piece have no weight
    fills = "edge", "constant", "constant"
    cut = tuple(pieces(x, count, piece, fill) for x, fill in zip(nodes, fills, strict=True))
    return jax.lax.scan(add, total, cut)[0]


def _tensor(values: Float[Array, "2 B N N"]) -> Complex[Array, "N N N N"]:
    """S[j', k', j, k] from its blocks with j' ≤ k'."""
    N = values.shape[-1]
    place = np.zeros((N, N), int)
    rows, columns = np.triu_indices(N)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    block = jax.lax.complex(*values)[place]
    adjoint = jnp.conj(jnp.swapaxes(block, 2, 3))
    order = (np.arange(N)[None] - np.arange(N)[:, None])[:, :, None, None]  # k' − j'
    return jnp.where(order == 0, (block + adjoint) / 2, jnp.where(order > 0, block, adjoint))


def _two_level_moments(grid, amplitudes, layers, levels, packet):
    """The same for N = 2, shape (16, 4): of the matrix in (j'j), (k'k) its diagonal, then the rest above that."""
    # the kinetic energies of 0 → 0 and 1 → 1 (both the outgoing one), of 1 → 0 and of 0 → 1
    energies = one_loop(lambda *x: x, *grid.transitions)
    amplitudes = amplitudes.two_level_exits(energies, layers, levels, packet.mass)
    momenta = [safe_sqrt(2 * packet.mass * jnp.abs(x)) for x in energies]
    same = _same_gap(levels)  # of the transitions 00, 01, 10, 11
    same = [same[i][None] for i in ((0, 1), (0, 2), (1, 2))]
    step = grid.stretch * (packet.mass / momenta[0])  # dk
    particle = momenta, step, [x > 0 for x in energies[1:]], same
    if packet.log_envelope() is None:
        rows = one_loop(_joined, amplitudes, *_densities(packet, *particle))
    else:
        rows = _two_level_rows(amplitudes, packet, particle)
    rows = jnp.stack(rows)
    shares, ends = (jnp.asarray(x, rows.dtype) for x in (grid.shares, grid.end_shares))
    return _weigh(rows, shares, ends, grid.outermost), 0.0


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


def _weigh(
    rows: Float[Array, "*m n"],
    weights: Float[Array, "3 n"],
    ends: Float[Array, " K"],
    at: tuple[int, ...],
) -> Float[Array, "*m 4"]:
    """The integrals by the three rules, and the size of what these leave out: lengths `ends` beside the K nodes `at`.

    All but the first only tell the error: they are not differentiated.
    """
    fixed, coarse, ends = jax.lax.stop_gradient((rows, weights[1:], ends))
    left_out = jnp.abs(_entries(fixed, at)) @ ends
    fine = rows @ weights[0]
    if rows.ndim == 2:  # two levels: few rows, for which a product with one column is far cheaper
        return jnp.stack([fine, fixed @ coarse[0], fixed @ coarse[1], left_out], axis=-1)
    return jnp.concatenate([fine[..., None], fixed @ coarse.T, left_out[..., None]], axis=-1)


def _entries(x, at):
    """x[..., at] by slices, which are cheaper than a gather."""
    return x if len(at) == x.shape[-1] else jnp.stack([x[..., i] for i in at], axis=-1)


def _two_level_tensor(values: Float[Array, " 16"]) -> Complex[Array, "2 2 2 2"]:
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


def restore_trace(
    tensor: Complex[Array, "N N N N"],
) -> tuple[Complex[Array, "N N N N"], Float[Array, ""]]:
    """S(X · X) with X = M^(−1/2), M = S†(1), and the largest entry of |M − 1|.

    A map whose M is far from 1 is returned as it is: that is no quadrature error to be mended.
    """
    N = tensor.shape[0]
    one = jnp.eye(N, dtype=tensor.dtype)
    # Tr S(ρ) = Σ_jk M_kj ρ_jk
    M = jnp.sum(jnp.stack([tensor[a, a] for a in range(N)]), axis=0).T
    defect = jnp.max(jnp.abs(M - one))
    X = _inverse_root(jnp.where(defect < REPAIRABLE / N, M, one))
    # Σ_j S[a, b, j, k] X[j, c], then Σ_k … X[d, k]
    if N > UNROLLED:
        return jnp.einsum("abjk,jc,dk->abcd", tensor, X, X), defect
    terms = [tensor[:, :, j, None, :] * X[j][None, None, :, None] for j in range(N)]
    tensor = sum(terms[1:], start=terms[0])
    terms = [tensor[:, :, :, k, None] * X[:, k][None, None, None, :] for k in range(N)]
    tensor = sum(terms[1:], start=terms[0])
    return tensor, defect


def _inverse_root(M):
    """M^(−1/2) of a Hermitian matrix near 1, without its eigenvectors."""
    if M.shape[0] == 2:  # √M = (M + √det M)/√(tr M + 2 √det M)
        (a, b), (c, d) = M
        root = jnp.sqrt(jnp.real(a * d - b * c))
        adjugate = jnp.stack([jnp.stack([d + root, -b]), jnp.stack([-c, a + root])])
        return adjugate / (root * jnp.sqrt(jnp.real(a + d) + 2 * root))
    one = jnp.eye(M.shape[0], dtype=M.dtype)
    Y, X = M, one
    for _ in range(6):  # coupled Newton–Schulz: Y → M^(1/2), X → M^(−1/2)
        T = (3 * one - X @ Y) / 2
        Y, X = Y @ T, T @ X
    return X
