"""The map and its steady state in vectorised NumPy: every node at once, batched LAPACK."""

from itertools import pairwise

import numpy as np

from benchmarks._quadrature import exp_tail, tanh_sinh


def _panels(levels, beta, finite_nodes, tail_nodes, finite_reach, tail_range):
    """Nodes in the outgoing kinetic energy, one panel between neighbouring thresholds.

    Yields:
        (lower, upper, above, below, weights): the panel's ends, each node's distance from the
        lower and to the upper one (infinite on the last panel), and the weights.
    """
    gaps = np.subtract.outer(levels, levels).reshape(-1)
    edges = np.concatenate([[0.0], np.unique(gaps[gaps > 0.0])])
    u, v, w = tanh_sinh(finite_nodes, finite_reach)
    for lower, upper in pairwise(edges):
        size = upper - lower
        yield lower, upper, size * u, size * v, size * w
    x, w = exp_tail(tail_nodes, tail_range)
    yield edges[-1], np.inf, x / beta, np.full_like(x, np.inf), w / beta


def _outgoing_rows(kinetic, inner, U, length, mass):
    """Amplitudes into each outgoing channel, for the even and the odd half of the slab.

    A flat slab is its own mirror image, so with h = L/2 and Q^2 = 2m(E - H_S - W) its parities
    scatter apart: s = -1 + 2i sqrt(K) (Z + iK)^{-1} sqrt(K), Z = Q tan(Q h) or -Q cot(Q h). The
    poles of Z are cleared column by column, and e^{|Q| h} is scaled out where Q is imaginary.

    Args:
        kinetic: E - e_j in the leads, shape (nodes, out, N).
        inner: E less the levels of H_S + W, shape (nodes, out, N).
        U: eigenvectors of H_S + W.
        length, mass: of the slab and the particle.

    Returns:
        s sqrt(k_out / k_in), shape (2, nodes, out, N), zero into closed channels.
    """
    K = np.sqrt(2.0 * mass * kinetic.astype(complex))
    A = 2.0 * mass * inner
    Q = np.maximum(np.sqrt(np.abs(A)), 1e-150)
    x = 0.5 * length * Q
    C = np.where(A > 0.0, np.cos(x), 0.5 * (1.0 + np.exp(-2.0 * x)))
    S = np.where(A > 0.0, np.sin(x), -0.5 * np.expm1(-2.0 * x)) / Q
    upper = np.stack([A * S, -C])[..., None, :]
    lower = np.stack([C, S])[..., None, :]
    matrix = U * upper + 1j * K[..., :, None] * (U * lower)
    out = np.arange(len(U))
    row = U * lower[..., 0, :]
    # row_j' of U D (U N + i K U D)^{-1}, as a solve with the transposed matrix.
    green = np.linalg.solve(np.swapaxes(matrix, -1, -2), row[..., None])[..., 0]
    k_out = K[:, out, out]
    a = 2j * k_out[..., None] * green - np.eye(len(U))
    return np.where(kinetic > 0.0, a, 0.0), K.real, k_out.real


def numpy_map(levels, W, length, mass, beta, width, position, *, finite_nodes=32, tail_nodes=32,
              finite_reach=None, tail_range=None):  # fmt: skip
    """Scattering map of one slab, exact amplitudes, effusion packet from the left, any N.

    Args:
        levels: ascending levels, shape (N,).
        W: the slab's Hermitian coupling in the eigenbasis.
        length, mass, beta, width, position: L, m, beta, Delta x, x_0.
        finite_nodes, tail_nodes: nodes on each finite panel and on the last.
        finite_reach, tail_range: where the trapezoids are cut off; None: best for the count.

    Returns:
        S[j', k', j, k].
    """
    levels = np.asarray(levels, dtype=float)
    N = len(levels)
    inner_levels, U = np.linalg.eigh(np.diag(levels) + W)
    threshold = np.subtract.outer(levels, levels).T
    kinetic, energy, weights = [], [], []
    for lower, upper, above, below, w in _panels(
        levels, beta, finite_nodes, tail_nodes, finite_reach, tail_range
    ):
        # eps - threshold from the nearer end of the panel, so that no node loses digits.
        T = threshold[None]
        from_lower = (lower - T) + above[:, None, None]
        from_upper = (upper - T) - below[:, None, None] if np.isfinite(upper) else from_lower
        kinetic.append(np.where(lower >= T, from_lower, from_upper))
        energy.append(lower + above[:, None] + levels)
        weights.append(w)
    kinetic = np.concatenate(kinetic)
    energy = np.concatenate(energy)
    weights = np.concatenate(weights)

    inner = energy[..., None] - inner_levels
    a, p, k_out = _outgoing_rows(kinetic, inner, U, length, mass)
    p, q = p[:, :, None, :, None], p[:, None, :, None, :]
    mean = 0.5 * (p + q)
    rho = beta / mass * mean * np.exp(
        -beta * mean**2 / (2.0 * mass) - 0.5 * (width * (p - q)) ** 2 - 1j * (p - q) * position
    )  # fmt: skip
    # Every outgoing momentum of a node is the same: d eps m/sqrt(pq) s s* = dk k a a*/k = dk a a*.
    dk = weights * mass / k_out[:, 0]
    pairs = 0.5 * np.einsum("znaj,znbk->nabjk", a, a.conj())
    return np.einsum("n,nabjk->abjk", dk, rho * pairs).reshape(N, N, N, N)


def steady_state(S, levels, rate):
    """Steady state of -(i/hbar)[H_S, rho] + Gamma (S - 1) rho, with scaled rows and Tr rho = 1."""
    levels = np.asarray(levels, dtype=float)
    N = len(levels)
    gaps = np.subtract.outer(levels, levels).reshape(-1)
    # Rows over |gap| + rate; without a gap the rate drops out, and the row stands at any rate.
    flat = gaps == 0.0
    scale = np.where(flat, 1.0, np.abs(gaps) + rate)
    generator = np.where(flat, 1.0, rate)[:, None] * (S.reshape(N * N, N * N) - np.eye(N * N))
    generator = (generator - 1j * np.diag(gaps)) / scale[:, None]
    generator[0] = np.eye(N).reshape(-1)
    right = np.zeros(N * N, dtype=complex)
    right[0] = 1.0
    return np.linalg.solve(generator, right).reshape(N, N)


def numpy_vectorised(levels, W, length, mass, beta, width, position, rate, **nodes):
    """Steady state of one point; arguments as in `numpy_map`, and the rate Gamma."""
    S = numpy_map(levels, W, length, mass, beta, width, position, **nodes)
    return steady_state(S, levels, rate)


def numpy_batch(levels, W, length, mass, beta, width, position, rate, **nodes):
    """Steady states of a batch, point after point; arguments broadcast as in `numba_kernel`."""
    levels, W = np.asarray(levels, dtype=float), np.asarray(W, dtype=complex)
    N = levels.shape[-1]
    scalars = [length, mass, beta, width, position, rate]
    scalars = np.broadcast_arrays(*scalars, levels[..., 0], W[..., 0, 0].real)[:-2]
    shape = scalars[0].shape
    flat = [s.reshape(-1) for s in scalars]
    levels = np.broadcast_to(levels, (*shape, N)).reshape(-1, N)
    W = np.broadcast_to(W, (*shape, N, N)).reshape(-1, N, N)
    points = zip(levels, W, *flat, strict=True)
    rho = [numpy_vectorised(*point, **nodes) for point in points]
    return np.array(rho).reshape(*shape, N, N)


def reference(levels, W, length, mass, beta, width, position, rate):
    """Converged steady states, to about 1e-14 and slow: what errors are measured against."""
    return numpy_batch(levels, W, length, mass, beta, width, position, rate,
                       finite_nodes=128, tail_nodes=192)  # fmt: skip
