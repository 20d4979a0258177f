"""Random arguments for every public function of states: what is refused is refused by name, and NaN is never a number.

As a script, `python tests/test_fuzz_states.py COUNT SEED` runs a longer campaign, without a checker of annotations.
"""

import collections
import re
import sys
import traceback
from collections.abc import Generator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)

import jaxres as jr
from jaxres.waiting_times import Exponential, GammaDistributed, Regular

NAMED = re.compile(r"Argument `[\w.]+` (of \w+ )?must ")

SYSTEM, HOT = jr.letter.model(beta=0.05, rate=2.0)
_, COLD = jr.letter.model(beta=0.3, rate=1.0)
RULE = jr.DoubleExponential(nodes_between=9, nodes_above=17)
RHO = np.array([[0.6, 0.1 - 0.2j], [0.1 + 0.2j, 0.4]])
SIGMA = jnp.array([[0.3, 0.1], [0.1, 0.7]])
DRHO = jnp.array([[[0.1, 0.2j], [-0.2j, -0.1]]])
KRAUS = jnp.array([[[1.0, 0.0], [0.0, 0.6]], [[0.0, 0.8], [0.0, 0.0]]])
PAULI = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
S, T = jr.Superoperator.from_kraus(KRAUS), jr.Superoperator.identity(2)
KEY = jax.random.key(0)
NUMERICS = {"amplitudes": jr.Exact(), "quadrature": RULE}
LAW = Exponential()


def calls():
    """Every public function of states, maps and collisions, and arguments that it takes: {name: (function, those)}."""
    both, one = {"system": SYSTEM, "reservoirs": [HOT, COLD]}, {"system": SYSTEM, "reservoir": HOT}
    path = jr.trajectory(SYSTEM, HOT, RHO, collisions=5, key=KEY, quadrature=RULE)
    gain = jr.energy_distribution(SYSTEM, S, RHO)
    cheap = {
        "gibbs_state": (jr.gibbs_state, {"system": SYSTEM, "beta": 0.4}),
        "populations": (jr.populations, {"rho": RHO}),
        "coherence": (jr.coherence, {"rho": RHO, "j": 0, "k": 1}),
        "trace_distance": (jr.trace_distance, {"rho": RHO, "sigma": SIGMA}),
        "purity": (jr.purity, {"rho": RHO}),
        "l1_coherence": (jr.l1_coherence, {"rho": RHO}),
        "von_neumann_entropy": (jr.von_neumann_entropy, {"rho": RHO}),
        "relative_entropy": (jr.relative_entropy, {"rho": RHO, "sigma": SIGMA}),
        "relative_entropy_to_gibbs": (
            jr.relative_entropy_to_gibbs,
            {"system": SYSTEM, "rho": RHO, "beta": 0.4},
        ),
        "relative_entropy_of_coherence": (jr.relative_entropy_of_coherence, {"rho": RHO}),
        "fidelity": (jr.fidelity, {"rho": RHO, "sigma": SIGMA}),
        "classical_fisher": (jr.classical_fisher, {"rho": RHO, "drho": DRHO, "basis": None}),
        "quantum_fisher": (jr.quantum_fisher, {"rho": RHO, "drho": DRHO}),
        "heat_flow": (jr.heat_flow, {"system": SYSTEM, "S": S, "rate": 1.0, "rho": RHO}),
        "ergotropy": (jr.ergotropy, {"system": SYSTEM, "rho": RHO}),
        "effective_beta": (jr.effective_beta, {"system": SYSTEM, "rho": RHO}),
        "Superoperator": (
            jr.Superoperator,
            {"tensor": S.tensor, "error": 0.0, "trace_defect": 0.0},
        ),
        "identity": (jr.Superoperator.identity, {"size": 2}),
        "from_unitary": (jr.Superoperator.from_unitary, {"U": PAULI[1]}),
        "from_kraus": (jr.Superoperator.from_kraus, {"operators": KRAUS}),
        "from_choi": (jr.Superoperator.from_choi, {"C": S.choi}),
        "S(rho)": (lambda rho: S(rho), {"rho": RHO}),
        "S @ T": (lambda other: S @ other, {"other": T}),
        "S & T": (lambda other: S & other, {"other": T}),
        "canonical": (S.canonical, {"tol": 1e-6}),
        "kraus": (S.kraus, {"tol": 1e-6}),
        "chi": (S.chi, {"basis": PAULI}),
        "is_cptp": (S.is_cptp, {"tol": 1e-6}),
        "is_unital": (S.is_unital, {"tol": 1e-6}),
        "choi_distance": (jr.choi_distance, {"S": S, "T": T}),
        "process_fidelity": (jr.process_fidelity, {"S": S, "T": T}),
        "diamond_distance": (
            jr.diamond_distance,
            {"S": S, "T": T, "tol": 1e-3, "max_steps": 20},
        ),
        "coherence_estimate": (jr.coherence_estimate, {**one, "j": 0, "k": 1}),
        "state_at": (jr.state_at, {"system": SYSTEM, "path": path, "times": [0.0, 0.1]}),
        "Gamma": (GammaDistributed, {"shape": 2.0}),
        "sample": (GammaDistributed(2.0).sample, {"key": KEY}),
        "characteristic_function": (Regular().characteristic_function, {"u": 0.5}),
        "residual_characteristic_function": (
            GammaDistributed(2.0).residual_characteristic_function,
            {"u": [0.5, 0.1]},
        ),
        "moment": (gain.moment, {"n": 2}),
        "generating": (gain.generating, {"s": 0.3j}),
        "energy_distribution": (
            jr.energy_distribution,
            {"system": SYSTEM, "S": S, "rho": RHO},
        ),
        "collision_thermodynamics": (
            jr.collision_thermodynamics,
            {"system": SYSTEM, "S": S, "rho": RHO, "beta": 0.4},
        ),
        "Thermostat": (jr.losses.Thermostat, {"beta": 0.1, "slowest": 2.0, **NUMERICS}),
        "FastThermostat": (jr.losses.FastThermostat, {"beta": 0.1, "distance": 0.1}),
        "CoherenceAt": (
            jr.losses.CoherenceAt,
            {"value": 0.1, "j": 0, "k": 1, "least_rate": False},
        ),
        "TargetState": (jr.losses.TargetState, {"rho": RHO}),
        "HeatCurrent": (jr.losses.HeatCurrent, {"index": 0}),
        "Ergotropy": (jr.losses.Ergotropy, dict(NUMERICS)),
        "Penalised": (
            jr.losses.Penalised,
            {"loss": jr.losses.Thermostat(0.1, 1.0), "weight": 1.0},
        ),
        "Letter": (
            jr.losses.Letter,
            {"loss": jr.losses.CoherenceAt(0.1), "fixed": {"beta": 0.1}, "function": None},
        ),
    }
    costly = {  # each with a scattering map, if it comes to that
        "perturbation_series": (jr.perturbation_series, {**one, "order": 1, **NUMERICS}),
        "perturbative_state": (jr.perturbative_state, {**one, "order": 1, **NUMERICS}),
        "trajectory": (
            jr.trajectory,
            {
                **one,
                "rho0": RHO,
                "collisions": 3,
                "key": KEY,
                "dephase": False,
                "waiting_times": LAW,
                **NUMERICS,
            },
        ),
        "trajectories": (
            jr.trajectories,
            {
                **one,
                "rho0": RHO,
                "times": [0.1],
                "realisations": 2,
                "key": KEY,
                "dephase": False,
                "waiting_times": LAW,
                "chunk": 2,
                "progress": False,
                **NUMERICS,
            },
        ),
        "cycle_map": (jr.cycle_map, {**one, "waiting_times": LAW, **NUMERICS}),
        "cycle_state": (jr.cycle_state, {**one, "waiting_times": LAW, **NUMERICS}),
        "limit_cycle": (jr.limit_cycle, {**both, "waiting_times": LAW, **NUMERICS}),
        "tilted_generator": (jr.tilted_generator, {**both, "fields": [0.1, 0.2j], **NUMERICS}),
        "counting_statistics": (jr.counting_statistics, {**both, "order": 2, **NUMERICS}),
        "collision_heat": (jr.collision_heat, {**one, "rho": RHO, **NUMERICS}),
        "currents": (jr.currents, {**both, "rho": RHO, "betas": [0.1, 0.2], **NUMERICS}),
        "CoherenceAt()": (
            lambda system, reservoirs: jr.losses.CoherenceAt(0.1, quadrature=RULE)(
                system, reservoirs
            ),
            both,
        ),
        "HeatCurrent()": (
            lambda system, reservoirs: jr.losses.HeatCurrent(1, quadrature=RULE)(
                system, reservoirs
            ),
            both,
        ),
    }
    return cheap, costly


ITSELF = []
ITSELF.append(ITSELF)


class Odd:
    """An object that nothing expects."""

    def __repr__(self):
        return "<odd>"


def junk():
    """What may come instead of an argument: now and then it is admissible."""
    nan, eye = np.nan, np.eye(2)
    hole = RHO.copy()
    hole[0, 1] = nan
    plain = [
        None, "0.5", "", b"1", Odd(), Odd, [], (), {}, {"a": 1}, set(), ITSELF, [None], ["a"],
        [[1, 2], [3]], 10**400, -(10**400), [10**400], 1j, 2 + 1j, True, False, np.bool_(True), 0,
        1, -1, 2, 3, 2.5, 0.0, -0.5, 0.3, 1e300, 1e-300, nan, np.inf, -np.inf, np.int64(1),
        np.int64(2), np.uint8(1), np.float32(0.5), np.float64(nan), np.complex64(1), np.str_("x"),
        jnp.int32(1), jnp.float32(0.5), jnp.float16(0.5), range(2), (x for x in ()), lambda x: x, int,
        jr.Exact, np.array(["a"]), np.array([None, 1], object), np.array(0.5),
        np.array("2020", "datetime64[s]"), np.ma.masked_array([0.1, 0.2], [True, False]),
        KEY, jax.random.split(KEY), jax.random.PRNGKey(0), slice(1), ..., NotImplemented,
    ]  # fmt: skip
    arrays = [
        np.zeros(0), np.zeros((0, 0)), np.zeros((2, 0, 2)), np.zeros((0, 2, 2)), np.ones(3),
        np.ones((2, 3)), np.ones((1, 1)), np.eye(3) / 3, eye, eye / 2, (eye / 2).tolist(),
        [[1, 0], [0, 0]], np.array([[1, 0], [0, 0]]), np.array([[True, False], [False, False]]),
        RHO.astype(np.complex64), (eye / 2).astype(np.float32), (eye / 2).astype(np.float16),
        qutip.Qobj(RHO), qutip.basis(2, 0), [qutip.Qobj(RHO)], 2 * RHO, RHO + 1e-17 * PAULI[1],
        np.array([[0.5, 0.3], [0.1, 0.5]]), np.diag([1.2, -0.2]), np.diag([1 + 1e-17, -1e-17]),
        nan * eye, np.full((2, 2), nan), np.full((2, 2), np.inf), hole, np.stack([RHO] * 3),
        np.stack([RHO, hole]), np.ones((2, 2, 3, 3)), np.ones((1, 1, 2, 2)) * RHO, 1e300 * RHO,
        jnp.asarray(RHO), jnp.asarray(eye / 2, jnp.float32), jnp.asarray(eye / 2, jnp.bfloat16),
        np.ones((3, 3, 3)), np.zeros((1, 3, 3)), [0.1, 0.2], [0.1, nan], [0.2, -0.1], [np.inf, 0],
        (0.1, jnp.float32(0.2)), np.ones((4, 4)), [0.1j, 0.2], [[0.1], [0.2]], np.array([1, 2]),
    ]  # fmt: skip
    bad = jr.Superoperator(np.arange(16).reshape((2,) * 4) * 1j)
    objects = [
        SYSTEM, jr.System([0.0, 1.0, 1.0]), jr.System([0.3]), HOT, [HOT], [HOT, 3], [HOT, HOT, COLD],
        HOT.packet, S, bad, jr.Superoperator(nan * S.tensor), jr.Superoperator.identity(3), RULE,
        jr.Exact(), LAW, Regular(), GammaDistributed(0.5), Exponential, jr.losses.Thermostat(0.1),
        jr.Reservoir(HOT.packet, HOT.scatterer, 0.0), jr.Reservoir(HOT.packet, HOT.scatterer, np.inf),
        jr.Slab(np.eye(2), 1.0),
    ]  # fmt: skip
    return [*plain, *arrays, *objects]


def has_nan(x):
    """Whether an argument is a matrix, or several, all of them with an entry that is NaN or infinite."""
    if not isinstance(x, np.ndarray) or x.ndim < 2 or x.dtype.kind not in "fc" or not x.size:
        return False
    return bool(np.all(np.any(~np.isfinite(x), axis=(-2, -1))))


def verdict(function, arguments, seen_nan):
    """What comes of a call: "value", "named", or a line that says what is wrong."""
    try:
        result = function(**arguments)
    except ValueError as error:
        if NAMED.match(str(error)):
            return "named"
        return f"unnamed ValueError: {error}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:300]} in {where.filename}:{where.lineno}"
    if seen_nan and eqx.is_inexact_array(result) and np.any(np.isfinite(np.asarray(result))):
        return f"a number of NaN: {result}"
    return "value"


def campaign(count, seed, tables):
    """Counts of the verdicts, and each failure with the call that it came from."""
    rng = np.random.default_rng(seed)
    pool, counts, failures = junk(), collections.Counter(), []
    table = {name: call for each in tables for name, call in each.items()}
    names = list(table)
    for number in range(1, count + 1):
        if number % 2000 == 0:
            jax.clear_caches()  # a process has no memory for all programs of a long campaign
        name = names[rng.integers(len(names))]
        function, good = table[name]
        keys = list(good)
        changed = rng.choice(keys, size=min(len(keys), 1 + (rng.random() < 0.3)), replace=False)
        new = {str(key): pool[rng.integers(len(pool))] for key in changed}
        endless = any(x is ITSELF or isinstance(x, Generator) for x in new.values())
        if isinstance(function, type) and endless:
            continue  # equinox looks into the fields of an object before their converters do
        seen = any(has_nan(x) for key, x in new.items() if key in ("rho", "sigma", "rho0", "drho"))
        found = verdict(function, {**good, **new}, seen)
        kind = found if found in ("value", "named") else "failure"
        counts[kind] += 1
        if kind == "failure":
            failures.append((name, {k: repr(x)[:120] for k, x in new.items()}, found))
    return counts, failures


@pytest.fixture(scope="module")
def tables():
    return calls()


@pytest.mark.slow
def test_the_functions_take_what_they_should(tables):
    for name, (function, good) in {**tables[0], **tables[1]}.items():
        assert verdict(function, good, False) == "value", name


@pytest.mark.slow
def test_everyday(tables):
    counts, failures = campaign(300, 1, tables[:1])
    assert failures == []
    assert counts["named"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_campaign(tables, seed):
    counts, failures = campaign(1500, 100 + seed, tables)
    assert failures == []
    assert counts["named"] > 750


if __name__ == "__main__":
    done, wrong = campaign(int(sys.argv[1]), int(sys.argv[2]), calls())
    kinds = collections.Counter()
    for name, new, found in wrong:
        kinds[name, found[:60]] += 1
        if kinds[name, found[:60]] == 1:
            print(name, new, found, sep="\n  ")
    print(dict(done), len(kinds), "kinds")
