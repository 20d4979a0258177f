"""Every stage of the pipeline against the independent reference numbers of golden.json."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, reservoir_of, scatterer_of, system_of

import jaxres as jr

DEFAULT = jr.DoubleExponential()
FINE = DEFAULT.refined()
MAPS = [
    "paper",
    "cold_qubit",
    pytest.param("qutrit", marks=pytest.mark.slow),
    pytest.param("stack", marks=pytest.mark.slow),
]


@eqx.filter_jit
def amplitudes(system, scatterer, mass, energies, model):
    return jax.vmap(
        lambda E: jr.amplitudes(system, scatterer, mass=mass, energy=E, amplitudes=model)
    )(energies)


@pytest.mark.parametrize(
    "model",
    [jr.Exact(), pytest.param(jr.TransferMatrix(), marks=pytest.mark.slow)],
    ids=["exact", "transfer"],
)
@pytest.mark.parametrize("name", [*MAPS, "opaque"])
def test_amplitudes(golden, name, model):
    if name == "opaque" and isinstance(model, jr.TransferMatrix):
        pytest.skip("the plain product of transfer matrices has lost every digit here")
    case = golden[name]
    energies = jnp.asarray(case["energies"])
    s = amplitudes(system_of(case), scatterer_of(case), jnp.asarray(case["mass"]), energies, model)

    size = np.max(np.abs(case["transmission"]), axis=(1, 2))
    for got, expected in [
        (s.transmission, case["transmission"]),
        (s.reflection, case["reflection"]),
    ]:
        error = np.max(np.abs(np.asarray(got) - expected), axis=(1, 2))
        # a reflection of modulus 1 is not known to 1e-10 of a transmission of 1e-27
        scale = size if got is s.transmission else np.maximum(size, 1e-5)
        assert np.all(error <= 1e-10 * scale)

    flux = jnp.sum(jnp.abs(s.transmission) ** 2 + jnp.abs(s.reflection) ** 2, axis=1)
    is_open = case["energies"][:, None] > case["levels"]
    np.testing.assert_allclose(flux, is_open, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    ("quadrature", "bound"),
    [
        (DEFAULT, 1e-8),
        (FINE, 1e-12),
        pytest.param(jr.GaussLegendre(64, 128), 1e-12, marks=pytest.mark.slow),
    ],
    ids=["default", "twice", "legendre"],
)
def test_map(golden, name, quadrature, bound):
    case = golden[name]
    S = jr.scattering_map(system_of(case), reservoir_of(case), quadrature=quadrature)
    error = largest(S.tensor - case["map"])
    assert error <= bound
    # what the map says of itself is honest (the reference is good to about 2e-14)
    assert error <= max(10 * float(S.error), 1e-13)


@eqx.filter_jit
def coherence_and_gradient(system, reservoir):
    """|ρ01|, the solution, and the derivatives of |ρ01| with respect to Δx, Γ and β."""

    def where(reservoir):
        return reservoir.packet.width, reservoir.rate, reservoir.packet.beta

    def coherence(numbers):
        sol = jr.steady_state(system, eqx.tree_at(where, reservoir, numbers))
        return jr.coherence(sol.rho), sol

    return jax.value_and_grad(coherence, has_aux=True)(where(reservoir))


@pytest.mark.parametrize("name", MAPS)
def test_steady_state_and_gradient(golden, name):
    case = golden[name]
    system, reference = system_of(case), case["coherence_gradient"]
    for rate, expected in zip(case["rates"], case["steady"], strict=True):
        (coherence, sol), _ = coherence_and_gradient(system, reservoir_of(case, rate))
        assert sol.result == jr.RESULTS.successful
        np.testing.assert_allclose(sol.rho, expected, rtol=0, atol=1e-9)
        # at small Γ the coherence is a small entry of the map: 1e-7 of it is 1e-9 of the map,
        # the accuracy of the default grid; the finer grid below is 1e-8 and better
        np.testing.assert_allclose(coherence, abs(expected[0, 1]), rtol=1e-7)

    _, gradient = coherence_and_gradient(system, reservoir_of(case, reference["rate"]))
    expected = [reference[name] for name in ("d_width", "d_rate", "d_beta")]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("name", MAPS)
def test_steady_state_of_a_fine_map(golden, name):
    case = golden[name]
    system = system_of(case)
    S = jr.scattering_map(system, reservoir_of(case), quadrature=FINE)
    solve = jax.jit(jax.vmap(lambda rate: jr.steady_state(system, jr.Collisions(S, rate)).rho))
    rhos = solve(jnp.asarray(case["rates"]))
    np.testing.assert_allclose(rhos, case["steady"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        jr.coherence(rhos), np.abs(case["steady"][:, 0, 1]), rtol=1e-11, atol=0
    )
