"""The scattering map of Eq. 17: error estimate, refinement, models and rules against each other."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import build, hermitian, largest, parameters, reservoir_of, system_of

import jaxres as jr

COARSE = jr.DoubleExponential(20, 16)
DEFAULT = jr.DoubleExponential()
FINE = DEFAULT.refined()

# heavy particles, long wells, strong coupling, cold gas, a far packet
HARD = {
    "heavy": dict(mass=10.0, length=2.0),
    "long": dict(mass=3.0, length=4.0),
    "strong": dict(mass=1.0, length=3.0, coupling=3.0),
    "cold": dict(mass=10.0, beta=2.0, width=0.5),
    "far": dict(mass=10.0, position=-30.0),
}


def true_and_estimated(S, reference):
    return largest(S.tensor - reference), float(S.error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "quadrature",
    [COARSE, DEFAULT, FINE, FINE.refined(), jr.GaussLegendre(), jr.GaussLegendre().refined()],
    ids=str,
)
def test_the_error_estimate_is_honest(golden, quadrature):
    for name in ("paper", "cold_qubit"):
        case = golden[name]
        S = jr.scattering_map(system_of(case), reservoir_of(case), quadrature=quadrature)
        true, estimate = true_and_estimated(S, case["map"])
        if true > 1e-13:
            assert true / 10 <= estimate
            if isinstance(quadrature, jr.DoubleExponential):
                assert estimate <= 1e4 * true  # and of some use

    for name, numbers in HARD.items():
        system, reservoir = jr.letter.model(**numbers)
        S = jr.scattering_map(system, reservoir, quadrature=quadrature)
        reference = jr.scattering_map(system, reservoir, quadrature=jr.GaussLegendre(1500, 1500))
        true, estimate = true_and_estimated(S, reference.tensor)
        assert reference.error < 1e-4, name
        if true > max(1e-13, 0.01 * float(reference.error)):
            assert true / 10 <= estimate, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qutrit", "stack"])
@pytest.mark.parametrize("quadrature", [COARSE, DEFAULT], ids=str)
def test_the_error_estimate_is_honest_for_more_levels_and_slabs(golden, name, quadrature):
    case = golden[name]
    S = jr.scattering_map(system_of(case), reservoir_of(case), quadrature=quadrature)
    true, estimate = true_and_estimated(S, case["map"])
    assert estimate < 1e-3
    if true > 1e-13:
        assert true / 10 <= estimate <= 1e4 * true


def test_tol_refines_until_it_is_met():
    system, reservoir = jr.letter.model(mass=10.0, beta=2.0, width=0.5)
    assert jr.scattering_map(system, reservoir).error > 1e-3
    S = jr.scattering_map(system, reservoir, tol=1e-3)
    reference = jr.scattering_map(system, reservoir, quadrature=jr.GaussLegendre(1500, 1500))
    assert S.error <= 1e-3
    assert largest(S.tensor - reference.tensor) <= 1e-3
    # what is good enough is left as it is
    easy = jr.letter.model()
    assert largest(
        jr.scattering_map(*easy, tol=1e-8).tensor - jr.scattering_map(*easy).tensor
    ) == 0  # fmt: skip


def test_tol_says_when_it_is_not_met():
    system, reservoir = jr.letter.model(mass=10.0, length=2.0)
    with pytest.raises(ValueError, match=r"`tol` must be reachable, .* > 1e-12 with DoubleExp"):
        jr.scattering_map(system, reservoir, tol=1e-12, max_refinements=1)


@pytest.mark.slow
def test_the_scatterer_moved_is_the_packet_moved_the_other_way():
    # behind an empty slab of length a the scatterer begins at x = a
    W, a = hermitian(1, 2), 0.8
    levels = [-0.3, 0.3]
    empty = jnp.zeros((2, 2))
    system, moved = build(
        parameters(levels=levels, couplings=[empty, W], lengths=[a, 1.0], position=-2.0)
    )
    _, shifted = build(parameters(levels=levels, couplings=[W], lengths=[1.0], position=-2.0 - a))
    _, wrong = build(parameters(levels=levels, couplings=[W], lengths=[1.0], position=-2.0 + a))
    S = jr.scattering_map(system, moved, quadrature=FINE)
    expected = jr.scattering_map(system, shifted, quadrature=FINE)
    assert largest(S.tensor - expected.tensor) < 1e-12
    assert largest(S.tensor - jr.scattering_map(system, wrong, quadrature=FINE).tensor) > 1e-3


@pytest.mark.slow
def test_the_two_level_formulas_are_the_general_ones():
    levels, W = [-0.4, 0.5], hermitian(6, 2, scale=1.3)
    system, slab = build(parameters(levels=levels, couplings=[W], lengths=[1.2]))
    S = jr.scattering_map(system, slab, quadrature=FINE)
    # half and half behind each other
    _, halves = build(parameters(levels=levels, couplings=[W, W], lengths=[0.6, 0.6]))
    assert largest(S.tensor - jr.scattering_map(system, halves, quadrature=FINE).tensor) < 1e-12
    # beside a third level that is not coupled
    three = jnp.zeros((3, 3), complex).at[:2, :2].set(W)
    system3, slab3 = build(parameters(levels=[*levels, 2.0], couplings=[three], lengths=[1.2]))
    embedded = jr.scattering_map(system3, slab3, quadrature=FINE).tensor[:2, :2, :2, :2]
    assert largest(S.tensor - embedded) < 1e-12


@pytest.mark.parametrize("length", [1.2, 1e-2, 1e-5, 1e-8])
def test_thin_slabs_are_no_worse(length):
    """The two-level formulas measure energies in units of the slab: there all are tiny for a thin one."""
    levels, W = [-0.4, 0.5], hermitian(6, 2, scale=1.3)
    system, slab = build(parameters(levels=levels, couplings=[W], lengths=[length]))
    product = jr.scattering_map(system, slab, amplitudes=jr.TransferMatrix())
    assert largest(jr.scattering_map(system, slab).tensor - product.tensor) < 1e-14


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cold_qubit", "qutrit"])
def test_transfer_matrices_give_the_same_map(golden, name):
    case = golden[name]
    system, reservoir = system_of(case), reservoir_of(case)
    S = jr.scattering_map(system, reservoir)
    product = jr.scattering_map(system, reservoir, amplitudes=jr.TransferMatrix())
    assert largest(S.tensor - product.tensor) < 1e-10


def test_refined_doubles_the_nodes():
    assert jr.DoubleExponential(7, 9).refined() == jr.DoubleExponential(14, 18)
    assert jr.GaussLegendre(7, 9).refined() == jr.GaussLegendre(14, 18)


def test_errors_of_composed_maps_add():
    S = jr.scattering_map(*jr.letter.model())
    np.testing.assert_allclose((S @ S).error, 2 * S.error)
