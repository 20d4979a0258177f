"""What the library is measured against: the same steady state, computed without it.

All take `(levels, W, length, mass, beta, width, position, rate)` of a system with one slab (W in
the energy eigenbasis, hbar = 1), hit from the left by an effusion packet, with exact amplitudes,
and return rho. `python -m benchmarks.baselines` prints their times and errors.
"""

import argparse
import statistics
import time
from functools import partial
from itertools import product

import numpy as np

from benchmarks._numba_kernel import numba_kernel as numba_kernel
from benchmarks._numpy_vectorised import (
    numpy_batch as numpy_batch,
    numpy_map as numpy_map,
    numpy_vectorised as numpy_vectorised,
    reference as reference,
    steady_state as steady_state,
)
from benchmarks._qutip import qutip_solve as qutip_solve, qutip_steadystate as qutip_steadystate
from benchmarks._scipy_quad import scipy_quad as scipy_quad


def random_points(count, seed=0):
    """Random parameters around the Letter's qubit, as arrays over the batch."""
    rng = np.random.default_rng(seed)
    gap = rng.uniform(0.3, 1.2, count)
    coupling = rng.uniform(0.5, 1.5, count)
    return (
        0.5 * gap[:, None] * np.array([-1.0, 1.0]),
        coupling[:, None, None] * np.array([[0.0, 1.0 + 1.0j], [1.0 - 1.0j, 0.0]]),
        np.full(count, 1.0),
        np.full(count, 0.1),
        rng.uniform(0.05, 0.2, count),
        rng.uniform(0.7, 1.5, count),
        np.full(count, -10.0),
        rng.uniform(0.5, 20.0, count),
    )


def head(points, count):
    """The first points of a batch."""
    return tuple(values[:count] for values in points)


def worst_error(rho, exact):
    """Largest error of |rho_01| over a batch."""
    return np.max(np.abs(np.abs(rho[..., 0, 1]) - np.abs(exact[..., 0, 1])))


def seconds(function, repeats):
    """Median time of a call, after one that is not counted.

    Returns:
        (median, smallest, largest) in seconds.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times), max(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--checked", type=int, default=64, help="points compared")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quad", action="store_true", help="the SciPy script too (slow)")
    options = parser.parse_args()
    points = random_points(options.batch)
    checked = head(points, options.checked)
    exact = reference(*checked)

    print(f"{'method':<28}{'per state':>12}{'least':>12}{'most':>12}{'error':>10}")

    def row(name, function, count, rho, compared):
        median, least, most = (1e6 * t / count for t in seconds(function, options.repeats))
        error = worst_error(rho, compared)
        print(f"{name:<28}{median:>9.2f} us{least:>9.2f} us{most:>9.2f} us{error:>10.1e}")

    for build, (finite, tail) in product(
        ("simd", "libm"), ((20, 20), (28, 24), (36, 28), (40, 32), (48, 36), (56, 40))
    ):
        nodes = {"finite_nodes": finite, "tail_nodes": tail, "build": build}
        kernel = partial(numba_kernel, *points, **nodes)
        rho = numba_kernel(*checked, **nodes)
        row(f"numba {build} {finite}+{tail}", kernel, options.batch, rho, exact)
    some = head(points, 16)
    row("numpy", partial(numpy_batch, *some), 16, numpy_batch(*checked), exact)
    one = [values[0] for values in points]
    S = numpy_map(*one[:-1], finite_nodes=128, tail_nodes=192)
    given = {
        "numpy solve": steady_state,
        "qutip solve": qutip_solve,
        "qutip direct": partial(qutip_steadystate, method="direct"),
        "qutip svd": partial(qutip_steadystate, method="svd"),
    }
    for name, solve in given.items():
        solve = partial(solve, S, one[0], one[-1])
        row(f"{name}, map given", solve, 1, solve(), exact[0])
    if options.quad:
        start = time.perf_counter()
        rho = scipy_quad(*one)
        taken = 1e6 * (time.perf_counter() - start)
        error = worst_error(rho, exact[0])
        print(f"{'scipy quad':<28}{taken:>9.0f} us{'':>24}{error:>10.1e}")


if __name__ == "__main__":
    main()
