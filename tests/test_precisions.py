"""Numbers of any kind and precision at every door, single precision, and strict rules of promotion."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

import jaxres as jr

W = np.array([[0.5, 1.0], [1.0, -0.25]])  # exact in single precision
LEVELS = [-0.25, 0.25]
THERMAL = dict(beta=0.5, mass=0.5, width=1.0, position=-2.0)
RATE = 2.0


def model(kind=lambda x: x, coupling=W, rate=RATE, **changes):
    """The same model from numbers of another kind."""
    packet = jr.EffusionPacket(**{name: kind(x) for name, x in (THERMAL | changes).items()})
    slab = jr.Slab(kind(coupling), kind(1.0))
    return jr.System(kind(LEVELS)), jr.Reservoir(packet, slab, kind(rate))


def single(x):
    return jnp.asarray(x, "float32")


KINDS = {
    "float32": single,
    "numpy float32": lambda x: np.asarray(x, np.float32),
    "float16": lambda x: np.asarray(x, np.float16),
    "list": lambda x: np.asarray(x).tolist(),
    "float32 scalars in lists": lambda x: jax.tree.map(np.float32, np.asarray(x).tolist()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_become_the_process_s_own(kind):
    leaves = jax.tree.leaves(model(KINDS[kind]))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}
    for ours, theirs in zip(leaves, jax.tree.leaves(model()), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_whole_numbers_and_truth_values_are_numbers():
    flip = [[0, 1], [1, 0]]
    for H in ([[1, 0], [0, -1]], np.diag([1, -1]), np.diag([1, -1]).astype("int8")):
        np.testing.assert_array_equal(jr.System.from_hamiltonian(H).levels, [-1, 1])
        by_flip = jr.System.from_hamiltonian(0 * np.asarray(H), resolve=flip)
        assert largest(jnp.abs(by_flip.to_eigenbasis(flip)) - np.eye(2)) < 1e-15
    system = jr.System([False, True])
    assert system.levels.dtype == jnp.result_type(float)
    assert jr.Slab(flip, True).length == jr.Slab(np.array(flip) > 0, np.int8(1)).length == 1
    assert jr.System([0, 10**30]).levels[1] == 1e30
    assert jr.systems.qubit(1, [0, 0, 1]).levels[1] == 0.5
    assert jr.systems.oscillator(np.int64(3), jnp.asarray(2)).levels[2] == 5
    assert jr.systems.annihilation(jnp.asarray(3)).shape == (3, 3)
    sites = np.int64(2)
    assert jr.systems.on_site(np.eye(2, dtype=int), np.uint8(1), sites).shape == (4, 4)
    assert jr.DoubleExponential(np.int64(24), np.int32(40)) == jr.DoubleExponential(24, 40)
    assert hash(jr.GaussLegendre(jnp.asarray(24))) == hash(jr.GaussLegendre(24))


def test_operators_of_qutip_are_matrices():
    qutip = pytest.importorskip("qutip")
    H = 0.3 * qutip.sigmaz() + 0.1 * qutip.sigmay()
    system = jr.System.from_hamiltonian(H, resolve=qutip.sigmaz())
    np.testing.assert_allclose(system.levels, H.eigenenergies(), atol=1e-15)
    assert jr.Slab(qutip.sigmax(), 1.0).coupling.shape == (2, 2)
    assert jr.InternalState(system, qutip.ket2dm(qutip.basis(2, 0))).state[0, 0] == 1
    assert largest(system.to_eigenbasis(H) - jnp.diag(system.levels)) < 1e-15


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_holds_to_rounding_is_judged_by_the_precision_in_which_it_comes(precision):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3))
    U = np.linalg.qr(A)[0].astype(precision)
    system = jr.System([0, 1, 2], U)
    gram = system.basis.T @ system.basis
    assert largest(U.T.astype(float) @ U - np.eye(3)) > 1e-9  # a control
    assert largest(gram - np.eye(3)) < 1e-14
    assert system.valid()
    state = jr.gibbs_state(system, 0.7).real.astype(precision)
    unit = jr.InternalState(system, state / 1)
    assert abs(jnp.trace(unit.state) - 1) < 1e-15 and unit.valid()
    noisy = (A + A.T).astype(precision)
    noisy[0, 1] *= 1 + 4 * np.finfo(precision).eps
    coupling = jr.Slab(noisy, 1.0).coupling
    assert largest(coupling - coupling.T) == 0 < largest(noisy - noisy.T)
    with pytest.raises(ValueError, match="`coupling` must be Hermitian"):
        jr.Slab(noisy.astype(float), 1.0)


def cast(tree):
    return jax.tree.map(lambda x: x.astype("complex64" if jnp.iscomplexobj(x) else "float32"), tree)


def turned():
    """A model with a basis and a unit, which single precision leaves unitary and a state to its own rounding only."""
    system = jr.System.from_hamiltonian([[0.3, 0.1], [0.1, -0.2]])
    unit = jr.InternalState.thermal(jr.System.from_hamiltonian([[0.2, 0.1j], [-0.1j, 0.0]]), 0.3)
    slab = jr.Slab(np.kron(W, [[1, 0.5], [0.5, 2]]), 1.0)
    return system, jr.Reservoir(jr.ThermalMixture(**THERMAL), slab, RATE, internal=unit)


@pytest.mark.slow
@pytest.mark.parametrize("make", [model, pytest.param(turned, marks=pytest.mark.campaign)])
def test_objects_cast_to_single_precision_work_as_they_are(make):
    def coherence(system, reservoir):
        return jr.coherence(jr.steady_state(system, reservoir).rho)

    system, reservoir = make()
    low, also = cast((system, reservoir))
    assert {str(x.dtype) for x in jax.tree.leaves((low, also))} <= {"float32", "complex64"}
    expected = coherence(system, reservoir)
    for pair in [(low, reservoir), (system, also), (low, also)]:
        sol = jr.steady_state(*pair)
        assert sol.rho.dtype == jnp.dtype("complex128")
        assert sol.result == jr.RESULTS.successful
        np.testing.assert_allclose(jr.coherence(sol.rho), expected, rtol=1e-6)
        S = jr.scattering_map(*pair)
        assert {str(x.dtype) for x in jax.tree.leaves(S)} == {"complex128", "float64"}
    grad = jax.grad(coherence, (0, 1))(low, also)
    theirs = jax.grad(coherence, (0, 1))(system, reservoir)
    for x, y, z in zip(*map(jax.tree.leaves, (grad, theirs, (low, also))), strict=True):
        assert x.dtype == z.dtype
        if (
            x.ndim < 2
        ):  # those of matrices have a meaning along what keeps them Hermitian, or unitary
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    rho = jr.gibbs_state(low, 0.3)
    path = jr.trajectory(low, also, rho, collisions=3, key=jax.random.key(0))
    theirs = jr.trajectory(system, reservoir, rho, collisions=3, key=jax.random.key(0))
    np.testing.assert_allclose(path.states, theirs.states, atol=1e-5)
    amps = jr.amplitudes(low, model()[1].scatterer, mass=np.float32(0.5), energy=np.float32(2))
    assert amps.transmission.dtype == jnp.dtype("complex128")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["levels", "rate", *THERMAL, "coupling"])
def test_one_number_in_single_precision(name):
    def coherence(x):
        changes = {} if name == "levels" else {name: x}
        system, reservoir = model(**changes)
        system = jr.System(x) if name == "levels" else system
        return jr.coherence(jr.steady_state(system, reservoir).rho)

    value = single(dict(levels=LEVELS, rate=RATE, coupling=W, **THERMAL)[name])
    low, high = jax.grad(coherence)(value), jax.grad(coherence)(value.astype(float))
    assert low.dtype == jnp.float32
    if name == "coupling":  # a derivative along Hermitian changes
        low, high = (x + x.T for x in (low, high))
    np.testing.assert_allclose(low, high, rtol=1e-6, atol=1e-7)


# --------------------------------------------------------------------------------------------------
# In processes of their own
# --------------------------------------------------------------------------------------------------


def packets():
    """Every packet from a function or a table, at a momentum where its distribution is known."""
    p, x = jnp.linspace(5.0, 13.0, 33), jnp.linspace(-9, 9, 73)
    phi = (2 / jnp.pi) ** 0.25 * jnp.exp(-((p - 9) ** 2))

    def gaussian(p, q):
        return jnp.exp(-((p - 9) ** 2) - (q - 9) ** 2) * jnp.sqrt(2 / jnp.pi)

    def wigner(p, x):
        return jnp.exp(-(x**2) / 2 - 2 * (p - 9) ** 2) / jnp.pi

    make = jr.CustomPacket
    return {
        "function": make(gaussian, 0.5, (5.0, 13.0)),
        "pure": make.pure(lambda p: gaussian(p, p) ** 0.5, 0.5, (5.0, 13.0)),
        "table": make.from_table(p, phi[:, None] * phi[None], 0.5),
        "wigner": make.from_wigner(wigner, 0.5, (5.0, 13.0), x),
        "wigner table": make.from_wigner_table(p, x, wigner(p[:, None], x[None]), 0.5),
    }


def distributions():
    at = jnp.asarray(9.1)
    return {name: [float(x.distribution(at)), bool(x.valid())] for name, x in packets().items()}


def in_a_process(setting, function):
    code = (
        f"import jax; jax.config.update(*{setting!r}); import warnings; warnings.simplefilter('error');"
        f"warnings.filterwarnings('ignore', message='jaxres is computing in single'); import json, test_precisions;"
        f"print(json.dumps(test_precisions.{function}()))"
    )
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_packets_of_functions_and_tables_are_made_in_single_precision():
    exact = np.sqrt(2 / np.pi) * np.exp(-2 * 0.01)
    for x64 in (False, True):
        for name, (value, valid) in in_a_process(("jax_enable_x64", x64), "distributions").items():
            assert valid, name
            assert abs(value - exact) < (1e-12 if x64 and "table" not in name else 3e-6), name


@pytest.mark.slow
def test_grids_made_in_single_precision_are_even():
    p = jnp.linspace(5.0, 13.0, 33, dtype="float32")
    p, x = 1.1 * p, jnp.linspace(-9, 9, 73, dtype="float32") / 3
    steps = np.diff(np.asarray(x, float))
    assert (
        np.ptp(steps) > 1e-6 * steps.mean()
    )  # a control: not to the digits that double precision would have
    packet = jr.CustomPacket.from_wigner(
        lambda p, x: jnp.exp(-4.5 * x**2 - 2 / 9 * (p - 9) ** 2) / jnp.pi, 0.5, (0.0, 24.0), x
    )
    assert packet.valid()
    with pytest.raises(ValueError, match="`positions` must be evenly spaced"):
        jr.CustomPacket.from_wigner(packet.function, 0.5, (0.0, 24.0), np.asarray(x, float))


def strictly():
    """What the public functions make of the Letter's model and of three levels."""
    jax.config.update("jax_enable_x64", True)
    slabs = [jr.Slab(np.diag([0.9, 0.2, 0.7]) + 0.3, 0.7), jr.Slab(np.eye(3) - 0.4, 0.5)]
    gas = jr.Reservoir(jr.ThermalMixture(0.8, 0.6, 0.7, -1.5), jr.Stack(slabs), 2.0)
    return {
        "two": results(*jr.letter.model()),
        "three": results(jr.System([-0.5, 0.1, 0.9]), gas),
    }


def results(system, reservoir):
    def coherence(scale, reservoir):
        return jr.coherence(jr.steady_state(jr.System(scale * system.levels), reservoir).rho)

    amps = jr.amplitudes(system, reservoir.scatterer, mass=0.1, energy=2.0)
    value, (slope, grad) = jax.value_and_grad(coherence, (0, 1))(1.0, reservoir)
    later = jr.evolve(system, reservoir, jr.gibbs_state(system, 0.3), [0.0, 2.0])[1]
    out = [value, slope, grad.rate, grad.packet.width, jnp.abs(amps.transmission[0, 0])]
    return [float(x) for x in [*out, jr.coherence(later)]]


@pytest.mark.campaign
def test_strict_rules_of_promotion_change_nothing():
    strict = in_a_process(("jax_numpy_dtype_promotion", "strict"), "strictly")
    for name, values in strictly().items():
        np.testing.assert_allclose(strict[name], values, rtol=1e-12)
