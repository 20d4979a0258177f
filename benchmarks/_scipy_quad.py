"""The script one writes first: Eq. (17) entry by entry with scipy.integrate.quad."""

from itertools import pairwise, product

import numpy as np
from scipy.integrate import quad

from benchmarks._numpy_vectorised import steady_state


def amplitudes(energy, levels, inner_levels, U, length, mass):
    """Transmission and reflection [out, in] at one energy, by matching with the transfer matrix.

    Args:
        energy: total energy E.
        levels: ascending levels, shape (N,).
        inner_levels: levels of H_S + W.
        U: eigenvectors of H_S + W.
        length, mass: of the slab and the particle.

    Returns:
        (transmission, reflection), flux-normalised, zero for closed channels.
    """
    N = len(levels)
    k = np.sqrt(2.0 * mass * (energy - levels).astype(complex))
    Q = np.sqrt(2.0 * mass * (energy - inner_levels).astype(complex))
    C = (U * np.cos(Q * length)) @ U.conj().T
    S = (U * (np.sin(Q * length) / Q)) @ U.conj().T
    AS = (U * (np.sin(Q * length) * Q)) @ U.conj().T
    iK = 1j * np.diag(k)
    # psi(0) = 1 + r, psi'(0) = iK(1 - r); psi(L) = t, psi'(L) = iK t.
    left = np.block([[np.eye(N), S @ iK - C], [iK, AS + C @ iK]])
    right = np.concatenate([C + S @ iK, C @ iK - AS])
    t, r = np.split(np.linalg.solve(left, right), 2)
    t = np.exp(-1j * k * length)[:, None] * t
    is_open = energy > levels
    flux = np.zeros((N, N))
    flux[np.ix_(is_open, is_open)] = np.sqrt(np.divide.outer(k[is_open].real, k[is_open].real))
    return t * flux, r * flux


def scipy_map(levels, W, length, mass, beta, width, position, *, tolerance=1e-8):
    """Scattering map of one slab, exact amplitudes, effusion packet from the left, any N.

    Args:
        levels: ascending levels, shape (N,).
        W: the slab's Hermitian coupling in the eigenbasis.
        length, mass, beta, width, position: L, m, beta, Delta x, x_0.
        tolerance: absolute tolerance of each panel of each entry.

    Returns:
        S[j', k', j, k].
    """
    levels = np.asarray(levels, dtype=float)
    N = len(levels)
    inner_levels, U = np.linalg.eigh(np.diag(levels) + W)
    gaps = np.subtract.outer(levels, levels).reshape(-1)
    edges = np.concatenate([[0.0], np.unique(gaps[gaps > 0.0])])
    edges = np.append(edges, edges[-1] + 40.0 / beta)

    def integrand(eps, a, b, j, k):
        p2 = 2.0 * mass * (eps + levels[a] - levels[j])
        q2 = 2.0 * mass * (eps + levels[b] - levels[k])
        if p2 <= 0.0 or q2 <= 0.0:
            return 0.0
        p, q = np.sqrt(p2), np.sqrt(q2)
        mean = 0.5 * (p + q)
        rho = beta / mass * mean * np.exp(
            -beta * mean**2 / (2.0 * mass) - 0.5 * (width * (p - q)) ** 2 - 1j * (p - q) * position
        )  # fmt: skip
        t, r = amplitudes(eps + levels[a], levels, inner_levels, U, length, mass)
        if a == b:
            t2, r2 = t, r
        else:
            t2, r2 = amplitudes(eps + levels[b], levels, inner_levels, U, length, mass)
        both = t[a, j] * np.conj(t2[b, k]) + r[a, j] * np.conj(r2[b, k])
        return mass / np.sqrt(p * q) * rho * both

    S = np.zeros((N, N, N, N), dtype=complex)
    for entry in product(range(N), repeat=4):
        for lower, upper in pairwise(edges):
            value, _ = quad(integrand, lower, upper, args=entry, complex_func=True,
                            epsabs=tolerance, epsrel=tolerance, limit=200)  # fmt: skip
            S[entry] += value
    return S


def scipy_quad(levels, W, length, mass, beta, width, position, rate, *, tolerance=1e-8):
    """Steady state of one point; arguments as in `scipy_map`, and the rate Gamma."""
    S = scipy_map(levels, W, length, mass, beta, width, position, tolerance=tolerance)
    return steady_state(S, levels, rate)
