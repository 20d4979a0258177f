"""Changing a number never recompiles, whatever it is given as."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres as jr

# as many nodes as nothing else uses, so that what is compiled here is not compiled already
RULE = jr.DoubleExponential(nodes_between=37, nodes_above=31)


def values(number):
    """One number as everything that a user may pass."""
    return [number, np.float64(number), jnp.asarray(number), np.asarray(number)]


def compilations(caplog):
    """How often a function of the package was compiled (conversions of numbers are JAX's own)."""
    text = caplog.text
    caplog.clear()
    return sum(
        text.count(f"Finished XLA compilation of jit({name})")
        for name in ("_collisions", "solve_steady_state", "_scattering_map")
    )


@pytest.mark.slow
def test_a_sweep_over_python_numbers_compiles_once(caplog):
    def solve(**numbers):
        system, reservoir = jr.letter.model(**numbers)
        sol = jr.steady_state(system, reservoir, quadrature=RULE)
        return sol, jr.coherence(sol.rho), jr.scattering_map(system, reservoir, quadrature=RULE)

    jax.clear_caches()  # the solve does not depend on the rule: another test may have compiled it
    with jax.log_compiles(), caplog.at_level("WARNING"):
        solve(rate=1.0)
        assert compilations(caplog) == 3  # once each: the log is what it is taken for
        for rate in (2, *values(3.0), 0.0, np.inf):
            solve(rate=rate)
        for width in (2, *values(0.7)):
            solve(width=width, beta=0.2, splitting=0.5, length=1.5, mass=0.3)
        assert compilations(caplog) == 0


@pytest.mark.slow
def test_a_users_own_jit_compiles_once():
    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def coherence(system, reservoir):
        return jr.coherence(jr.steady_state(system, reservoir, quadrature=RULE).rho)

    for number in (1, *values(2.0)):
        system, reservoir = jr.letter.model(
            splitting=number, coupling=number, length=number, beta=0.1 * number, mass=0.1 * number,
            width=number, position=-number, rate=number,
        )  # fmt: skip
        assert np.isfinite(coherence(system, reservoir))


@pytest.mark.slow
def test_gradients_are_compiled_once_too():
    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def gradient(reservoir):
        return jax.grad(lambda b: jr.coherence(jr.steady_state(system, b, quadrature=RULE).rho))(
            reservoir
        )

    system, _ = jr.letter.model()
    for rate in (1, *values(2.0)):
        assert np.isfinite(gradient(jr.letter.model(rate=rate)[1]).rate)


def test_importing_it_pulls_in_no_plotting_and_no_files():
    code = """
import sys, jax, equinox
base = set(sys.modules)  # what JAX brings along is not ours
import jaxres
heavy = {'matplotlib', 'xarray', 'pandas', 'h5py', 'h5netcdf', 'zarr', 'scipy', 'tqdm', 'typer', 'rich',
         'optax', 'pydantic', 'qutip', 'dask', 'numba'}
ours = {module.split('.')[0] for module in set(sys.modules) - base}
assert not heavy & ours, heavy & ours
assert 'scipy.constants' not in sys.modules
jaxres.units.Units
assert 'scipy.constants' in sys.modules  # on demand
"""
    subprocess.run([sys.executable, "-c", code], check=True)
