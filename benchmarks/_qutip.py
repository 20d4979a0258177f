"""The linear algebra alone, by QuTiP."""

import numpy as np


def _liouvillian(S, levels, rate):
    import qutip

    N = len(levels)
    # QuTiP stacks columns: the index of rho_jk is k N + j.
    matrix = np.transpose(S, (1, 0, 3, 2)).reshape(N * N, N * N)
    collision = qutip.Qobj(matrix - np.eye(N * N), dims=[[[N], [N]], [[N], [N]]])
    H = qutip.Qobj(np.diag(np.asarray(levels, dtype=complex)))
    return qutip.liouvillian(H) + rate * collision


def qutip_steadystate(S, levels, rate, method="direct"):
    """Steady state of -(i/hbar)[H_S, rho] + Gamma (S - 1) rho with qutip.steadystate.

    The time of "direct" on small systems is not its algebra's: QuTiP 5 changes a global option
    around the solve and rebuilds its dispatch tables, tens of milliseconds a call whatever N.
    `qutip_solve` is the same algebra without that.

    Args:
        S: the map, S[j', k', j, k].
        levels: ascending levels, shape (N,).
        rate: Gamma.
        method: "direct", "svd", or another of QuTiP's methods.

    Returns:
        rho, shape (N, N).
    """
    import qutip

    return qutip.steadystate(_liouvillian(S, levels, rate), method=method).full()


def qutip_solve(S, levels, rate):
    """What method "direct" solves, by qutip.data.solve: the trace added to the first row.

    Args and returns as in `qutip_steadystate`.
    """
    import qutip

    N = len(levels)
    L = _liouvillian(S, levels, rate).full()
    weight = np.mean(np.abs(L[L != 0.0]))
    L[0] += weight * np.eye(N).reshape(-1)
    b = np.zeros((N * N, 1), dtype=complex)
    b[0] = weight
    x = qutip.data.solve(qutip.data.Dense(L), qutip.data.Dense(b)).to_array()
    rho = x.reshape(N, N).T
    return 0.5 * (rho + rho.conj().T)
