"""The CPU limit: one fused loop per steady state, compiled by numba, for two levels and one slab.

What the kernel saves, and every other baseline does not:

- A flat slab is its own mirror image, so its even and odd halves scatter apart. With h = L/2 and
  Q^2 = 2m(E - H_S - W), psi'(0) = Z psi(0) with Z_even = Q tan(Q h), Z_odd = -Q cot(Q h), both real
  and symmetric, and s = -1 + 2i sqrt(K) (Z + iK)^{-1} sqrt(K) for each. Summed over transmission
  and reflection, s s* is the mean of the two parities: no exponential matrix, no linear solve,
  nothing complex but one determinant. Poles of Z are cleared by multiplying with the cosines and
  sines, and what is opaque stays bounded: e^{|Q| h} is scaled out of both.
- The phase of W_01 is a gauge (restored at the end), so Z is real for every Hermitian W.
- In the outgoing momentum k, S = sum int dk rho_U(p, q) a a* with a = -1 + 2ik (Z + iK)^{-1}: no
  singularity of the flux factors is left, and momenta, not energies, are what the tables hold.
- A steady state needs seven of the sixteen entries: trace and Hermiticity give the others.

Two builds of one source: `libm` calls the C library's sin, cos and exp, node by node; `simd` has
them as polynomials, which LLVM turns into vector code over the nodes.
"""

import math
from functools import cache

import numba as nb
import numpy as np

from benchmarks._numba_math import (
    jit,
    libm_cis,
    libm_exp,
    libm_half,
    poly_cis,
    poly_exp,
    poly_half,
)
from benchmarks._quadrature import exp_tail, tanh_sinh

BLOCK = 32


@jit
def _even(A1, A2, c1, s1, c2, s2):
    """Numerators and denominators of Q tan(Q h): (N1 D2, N2 D1, D1 D2, N1 N2)."""
    n1 = A1 * s1
    n2 = A2 * s2
    return n1 * c2, n2 * c1, c1 * c2, n1 * n2


@jit
def _odd(c1, s1, c2, s2):
    """The same for -Q cot(Q h)."""
    return -c1 * s2, -c2 * s1, s1 * s2, c1 * c2


@jit
def _matrix(n12, n21, u, v, w):
    """Z_00, Z_11, Z_01 from its eigenvalues' numerators and the projector's entries."""
    return u * n12 + v * n21, v * n12 + u * n21, w * (n12 - n21)


@jit
def _open_parity(n12, n21, DD, NN, u, v, w, kA, kB):
    """Both channels open: a_00 = (-P + iM)/d, a_11 = (-P - iM)/d, a_j'j = -2i k_j' z / d."""
    Z00, Z11, z = _matrix(n12, n21, u, v, w)
    kk = kA * kB * DD
    x = kA * Z11
    y = kB * Z00
    return NN + kk, x - y, z, NN - kk, x + y


def _build(half, cis, expo):
    """Compiles the kernel with the given slab function, e^{ix} and e^x."""

    @nb.njit(fastmath=True, error_model="numpy")
    def point(e0, e1, w00, w11, wabs, length, mass, beta, width, position, rate, finite, tail):
        gap = e1 - e0
        d2 = 2.0 * mass * gap
        kD = math.sqrt(d2)
        h = 0.5 * length
        # Inner levels E_1 < E_2 and the projector on the first.
        h00 = e0 + w00
        h11 = e1 + w11
        half_gap = 0.5 * (h11 - h00)
        R = max(math.sqrt(half_gap * half_gap + wabs * wabs), 1e-150)
        u = 0.5 * (1.0 + half_gap / R)
        v = 0.5 * (1.0 - half_gap / R)
        w = -0.5 * wabs / R
        mean = 0.5 * (h00 + h11)
        b01 = 2.0 * mass * (e0 - mean + R)
        b02 = 2.0 * mass * (e0 - mean - R)
        b11 = b01 + d2
        b12 = b02 + d2
        norm = 0.5 * beta / mass
        cs = -0.125 * beta / mass
        cd = -0.5 * width * width

        # Entries used: 1100, 0011 (real), 0001, 0100, 0101, 0110, 0111 (complex).
        t1100 = 0.0
        t0011 = 0.0
        r0001 = 0.0
        i0001 = 0.0
        r0100 = 0.0
        i0100 = 0.0
        r0101 = 0.0
        i0101 = 0.0
        r0110 = 0.0
        i0110 = 0.0
        r0111 = 0.0
        i0111 = 0.0

        bD = beta * gap
        for i in range(finite.shape[1]):
            k = kD * finite[0, i]
            kc = kD * finite[1, i]
            kp = kD * finite[2, i]
            wt = kD * finite[3, i]
            kk = k * k
            A1 = kk + b01
            A2 = kk + b02
            c1, s1 = half(A1, h)
            c2, s2 = half(A2, h)
            B1 = kk + b11
            B2 = kk + b12
            g1, f1 = half(B1, h)
            g2, f2 = half(B2, h)
            n12, n21, DD, NN = _even(A1, A2, c1, s1, c2, s2)
            Z00, Z11, _ = _matrix(n12, n21, u, v, w)
            X = NN - kc * Z00
            Y = k * (Z11 - kc * DD)
            n12, n21, DD, NN = _even(B1, B2, g1, f1, g2, f2)
            P, M, z, dr, di = _open_parity(n12, n21, DD, NN, u, v, w, kp, k)
            dd = 1.0 / (dr * dr + di * di)
            f = dd / (X * X + Y * Y)
            ur = X * X - Y * Y
            ui = -2.0 * X * Y
            Hr = f * (ur * dr - ui * di)
            Hi = f * (ur * di + ui * dr)
            m1100 = z * z * dd
            ar = z * Hi
            ai = -z * Hr
            br = P * Hr + M * Hi
            bi = P * Hi - M * Hr

            n12, n21, DD, NN = _odd(c1, s1, c2, s2)
            Z00, Z11, _ = _matrix(n12, n21, u, v, w)
            X = NN - kc * Z00
            Y = k * (Z11 - kc * DD)
            n12, n21, DD, NN = _odd(g1, f1, g2, f2)
            P, M, z, dr, di = _open_parity(n12, n21, DD, NN, u, v, w, kp, k)
            dd = 1.0 / (dr * dr + di * di)
            f = dd / (X * X + Y * Y)
            ur = X * X - Y * Y
            ui = -2.0 * X * Y
            Hr = f * (ur * dr - ui * di)
            Hi = f * (ur * di + ui * dr)
            m1100 += z * z * dd
            ar += z * Hi
            ai -= z * Hr
            br += P * Hr + M * Hi
            bi += P * Hi - M * Hr

            # rho_U between k_+ and k; both parities count one half.
            boltz = norm * wt * expo(-bD * finite[0, i] * finite[0, i])
            s = kp + k
            d = d2 / s
            g = norm * wt * k * s * expo(cs * s * s + cd * d * d)
            pc, ps = cis(d * position)
            t1100 += 4.0 * boltz * kk * kp * m1100
            r0101 += boltz * k * br
            i0101 += boltz * k * bi
            # (p, q) = (k, k_+): the phase is e^{+i d x0}.
            r0100 += g * (ar * pc - ai * ps)
            i0100 += g * (ar * ps + ai * pc)
        t1100 *= math.exp(-bD)

        kT = math.sqrt(2.0 * mass / beta)
        q0011 = 0.0
        q1100 = 0.0
        q0101 = 0.0
        j0101 = 0.0
        for i in range(tail.shape[1]):
            km = kT * tail[0, i]
            kmm = km * km
            kk = kmm + d2
            k = math.sqrt(kk)
            kp = math.sqrt(kk + d2)
            wt = kT * tail[1, i] * km / k
            A1 = kk + b01
            A2 = kk + b02
            c1, s1 = half(A1, h)
            c2, s2 = half(A2, h)
            B1 = kk + b11
            B2 = kk + b12
            g1, f1 = half(B1, h)
            g2, f2 = half(B2, h)
            n12, n21, DD, NN = _even(A1, A2, c1, s1, c2, s2)
            P, M, z, ar, ai = _open_parity(n12, n21, DD, NN, u, v, w, k, km)
            n12, n21, DD, NN = _even(B1, B2, g1, f1, g2, f2)
            Q, N, y, br, bi = _open_parity(n12, n21, DD, NN, u, v, w, kp, k)
            aa = 1.0 / (ar * ar + ai * ai)
            bb = 1.0 / (br * br + bi * bi)
            # F = 1 / (a conj(b)).
            f = aa * bb
            Fr = f * (ar * br + ai * bi)
            Fi = f * (ar * bi - ai * br)
            m0011 = z * z * aa
            m1100 = y * y * bb
            m1r = -z * M * aa
            m1i = -z * P * aa
            m2r = y * (P * Fi - M * Fr)
            m2i = -y * (M * Fi + P * Fr)
            xr = P * Q - M * N
            xi = -(P * N + M * Q)
            m3r = xr * Fr - xi * Fi
            m3i = xr * Fi + xi * Fr
            m4r = z * y * Fr
            m4i = z * y * Fi
            m5r = z * (N * Fr - Q * Fi)
            m5i = z * (N * Fi + Q * Fr)

            n12, n21, DD, NN = _odd(c1, s1, c2, s2)
            P, M, z, ar, ai = _open_parity(n12, n21, DD, NN, u, v, w, k, km)
            n12, n21, DD, NN = _odd(g1, f1, g2, f2)
            Q, N, y, br, bi = _open_parity(n12, n21, DD, NN, u, v, w, kp, k)
            aa = 1.0 / (ar * ar + ai * ai)
            bb = 1.0 / (br * br + bi * bi)
            f = aa * bb
            Fr = f * (ar * br + ai * bi)
            Fi = f * (ar * bi - ai * br)
            m0011 += z * z * aa
            m1100 += y * y * bb
            m1r -= z * M * aa
            m1i -= z * P * aa
            m2r += y * (P * Fi - M * Fr)
            m2i -= y * (M * Fi + P * Fr)
            xr = P * Q - M * N
            xi = -(P * N + M * Q)
            m3r += xr * Fr - xi * Fi
            m3i += xr * Fi + xi * Fr
            m4r += z * y * Fr
            m4i += z * y * Fi
            m5r += z * (N * Fr - Q * Fi)
            m5i += z * (N * Fi + Q * Fr)

            boltz = wt * tail[2, i]
            q0011 += boltz * kk * km * m0011
            q1100 += boltz * kk * kp * m1100
            q0101 += boltz * k * m3r
            j0101 += boltz * k * m3i
            s01 = k + km
            s12 = kp + k
            s02 = kp + km
            d01 = d2 / s01
            d12 = d2 / s12
            d02 = d01 + d12
            c01, p01 = cis(d01 * position)
            c12, p12 = cis(d12 * position)
            c02 = c01 * c12 - p01 * p12
            p02 = c01 * p12 + p01 * c12
            wk = wt * norm * k
            g01 = wk * s01 * expo(cs * s01 * s01 + cd * d01 * d01)
            g12 = wk * s12 * expo(cs * s12 * s12 + cd * d12 * d12)
            g02 = 2.0 * wk * k * s02 * expo(cs * s02 * s02 + cd * d02 * d02)
            # (p, q) = (k, k_-): e^{-i d x0}; the others have p < q.
            r0001 += g01 * (m1r * c01 + m1i * p01)
            i0001 += g01 * (m1i * c01 - m1r * p01)
            r0100 += g12 * (m2r * c12 - m2i * p12)
            i0100 += g12 * (m2r * p12 + m2i * c12)
            r0110 += g02 * (m4r * c02 - m4i * p02)
            i0110 += g02 * (m4r * p02 + m4i * c02)
            r0111 += g01 * (m5r * c01 - m5i * p01)
            i0111 += g01 * (m5r * p01 + m5i * c01)
        drop = math.exp(-bD)
        r0101 += norm * drop * q0101
        i0101 += norm * drop * j0101
        t1100 += 4.0 * norm * drop * drop * q1100
        t0011 = 4.0 * norm * q0011

        # Rows: population, Re and Im of the coherence; unknowns rho_00, Re and Im of rho_01. Rows
        # are scaled to order one; Cramer's rule does not see the scale of a row.
        gamma = rate / (rate + gap)
        omega = gap / (rate + gap)
        m00 = t1100 + t0011
        m01 = -2.0 * r0001
        m02 = 2.0 * i0001
        m10 = gamma * (r0100 - r0111)
        m11 = gamma * (r0101 - 1.0 + r0110)
        m12 = gamma * (i0110 - i0101) - omega
        m20 = gamma * (i0100 - i0111)
        m21 = gamma * (i0101 + i0110) + omega
        m22 = gamma * (r0101 - 1.0 - r0110)
        y0 = t0011
        y1 = -gamma * r0111
        y2 = -gamma * i0111
        x0 = m11 * m22 - m12 * m21
        x1 = m12 * m20 - m10 * m22
        x2 = m10 * m21 - m11 * m20
        inverse = 1.0 / (m00 * x0 + m01 * x1 + m02 * x2)
        rho00 = inverse * (y0 * x0 + y1 * (m02 * m21 - m01 * m22) + y2 * (m01 * m12 - m02 * m11))
        re = inverse * (y0 * x1 + y1 * (m00 * m22 - m02 * m20) + y2 * (m02 * m10 - m00 * m12))
        im = inverse * (y0 * x2 + y1 * (m01 * m20 - m00 * m21) + y2 * (m00 * m11 - m01 * m10))
        return rho00, re, im

    @nb.njit(fastmath=True, error_model="numpy", parallel=True)
    def batch(p, finite, tail, out):
        count = p.shape[0]
        for block in nb.prange((count + BLOCK - 1) // BLOCK):
            for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                out[n, 0], out[n, 1], out[n, 2] = point(
                    p[n, 0], p[n, 1], p[n, 2], p[n, 3], p[n, 4], p[n, 5],
                    p[n, 6], p[n, 7], p[n, 8], p[n, 9], p[n, 10], finite, tail,
                )  # fmt: skip

    return batch


@cache
def _kernel(build):
    if build == "simd":
        return _build(poly_half, poly_cis, poly_exp)
    return _build(libm_half, libm_cis, libm_exp)


@cache
def _tables(finite_nodes, tail_nodes, reach, span):
    u, v, w = tanh_sinh(finite_nodes, reach)
    finite = np.stack([np.sqrt(u), np.sqrt(v), np.sqrt(1.0 + u), 0.5 * w / np.sqrt(u)])
    x, w = exp_tail(tail_nodes, span)
    tail = np.stack([np.sqrt(x), 0.5 * w / np.sqrt(x), np.exp(-x)])
    return finite, tail


def numba_kernel(levels, W, length, mass, beta, width, position, rate, *,
                 finite_nodes=36, tail_nodes=28, finite_reach=None, tail_range=None,
                 build="simd"):  # fmt: skip
    """Steady states of a batch: exact amplitudes, effusion packet, left incidence, two levels.

    Args:
        levels: ascending levels, shape (..., 2).
        W: the slab's Hermitian coupling in the eigenbasis, shape (..., 2, 2).
        length, mass, beta, width, position, rate: numbers or arrays that broadcast with these.
        finite_nodes, tail_nodes: nodes on [0, Delta] and above; multiples of 4 fill the vectors.
        finite_reach, tail_range: where the two trapezoids are cut off; None: best for the count.
        build: "simd" or "libm".

    Returns:
        rho, complex, shape (..., 2, 2).
    """
    levels = np.asarray(levels, dtype=float)
    W = np.asarray(W, dtype=complex)
    w = W[..., 0, 1]
    columns = (
        levels[..., 0], levels[..., 1], W[..., 0, 0].real, W[..., 1, 1].real, np.abs(w),
        length, mass, beta, width, position, rate,
    )  # fmt: skip
    columns = np.broadcast_arrays(*columns, w)
    shape = columns[0].shape
    p = np.stack([c.real for c in columns[:-1]], axis=-1).reshape(-1, 11)
    finite, tail = _tables(finite_nodes, tail_nodes, finite_reach, tail_range)
    out = np.empty((p.shape[0], 3))
    _kernel(build)(p, finite, tail, out)
    w = columns[-1].reshape(-1)
    size = np.abs(w)
    phase = np.where(size > 0.0, w / np.where(size > 0.0, size, 1.0), 1.0)
    rho = np.empty((p.shape[0], 2, 2), dtype=complex)
    rho[:, 0, 0] = out[:, 0]
    rho[:, 1, 1] = 1.0 - out[:, 0]
    rho[:, 0, 1] = (out[:, 1] + 1j * out[:, 2]) * phase
    rho[:, 1, 0] = rho[:, 0, 1].conj()
    return rho.reshape(*shape, 2, 2)
