"""Bad input: a ValueError that names the argument, its value and the remedy, before anything is computed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres as jr

FLIP = jnp.array([[0.0, 1.0], [1.0, 0.0]])
SYSTEM, RESERVOIR = jr.letter.model()
SLAB, PACKET = RESERVOIR.scatterer, RESERVOIR.packet
GROUND = jnp.diag(jnp.array([1.0, 0.0]))
FLIP_MAP = jr.Superoperator.from_unitary(FLIP)


def packet(**changes):
    return jr.EffusionPacket(**dict(beta=0.1, mass=0.1, width=1.0, position=-10.0) | changes)


def reservoir(**changes):
    return jr.Reservoir(**dict(packet=PACKET, scatterer=SLAB, rate=5.0) | changes)


# what is called, and what the message has to say: the argument, the value, the remedy (if it is not obvious)
CASES = {
    # system
    "levels unsorted": (lambda: jr.System([0.3, -0.3]), "`levels`", "0.3 -0.3", "Sort it"),
    "levels nan": (lambda: jr.System([0.0, np.nan]), "`levels`", "nan"),
    "levels infinite": (lambda: jr.System([0.0, np.inf]), "`levels`", "inf"),
    "levels empty": (lambda: jr.System([]), "`levels`", "empty"),
    "levels two-dimensional": (lambda: jr.System(FLIP), "`levels`", "(2, 2)", "jax.vmap"),
    "levels complex": (lambda: jr.System([0.0, 1j]), "real", "1j", "real part"),
    "basis wrong": (lambda: jr.System([0.0, 1.0], 2 * jnp.eye(2)), "`basis`", "unitary", "3"),
    "basis shape": (lambda: jr.System([0.0, 1.0], jnp.eye(3)), "`basis`", "(2, 2)", "(3, 3)"),
    "H not Hermitian": (
        lambda: jr.System.from_hamiltonian(jnp.array([[0.0, 1.0], [0.5, 0.0]])),
        "`H`", "Hermitian", "0.5", "(A + A.conj().T)/2",
    ),
    "H not square": (lambda: jr.System.from_hamiltonian(jnp.ones((2, 3))), "`H`", "(2, 3)"),
    "H nan": (lambda: jr.System.from_hamiltonian(FLIP * jnp.nan), "`H`", "nan"),
    # scatterer
    "coupling not Hermitian": (
        lambda: jr.Slab(jnp.array([[0, 1j], [1j, 0]]), 1.0), "`coupling`", "Hermitian", "2",
    ),
    "coupling nan": (lambda: jr.Slab(FLIP.at[0, 0].set(jnp.nan), 1.0), "`coupling`", "nan"),
    "coupling one-dimensional": (lambda: jr.Slab(jnp.ones(2), 1.0), "`coupling`", "(2,)"),
    "length zero": (lambda: jr.Slab(FLIP, 0.0), "`length`", "positive", "0"),
    "length negative": (lambda: jr.Slab(FLIP, -1.5), "`length`", "positive", "-1.5"),
    "length nan": (lambda: jr.Slab(FLIP, np.nan), "`length`", "NaN"),
    "length vector": (lambda: jr.Slab(FLIP, [1.0, 2.0]), "`length`", "(2,)", "jax.vmap"),
    "stack empty": (lambda: jr.Stack([]), "`slabs`", "empty"),
    "stack of something": (lambda: jr.Stack([SLAB, 3.0]), "`slabs`", "3.0", "jaxres.Slab"),
    "stack of two sizes": (
        lambda: jr.Stack([SLAB, jr.Slab(jnp.eye(3), 1.0)]), "`slabs`", "(2, 2)", "(3, 3)",
    ),
    "profile empty": (lambda: jr.Profile(FLIP, [], 1.0), "`heights`", "empty"),
    "profile infinite": (lambda: jr.Profile(FLIP, [1.0, np.inf], 1.0), "`heights`", "inf"),
    "profile length": (lambda: jr.Profile(FLIP, [1.0, 2.0], -2.0), "`length`", "-2"),
    # packet
    "beta": (lambda: packet(beta=-0.1), "`beta`", "positive", "-0.1"),
    "beta infinite": (lambda: packet(beta=np.inf), "`beta`", "finite", "inf"),
    "mass": (lambda: packet(mass=0.0), "`mass`", "positive", "0"),
    "width": (lambda: packet(width=-1.0), "`width`", "positive", "-1"),
    "width nan": (lambda: packet(width=np.nan), "`width`", "NaN"),
    "position": (lambda: packet(position=np.inf), "`position`", "finite", "inf"),
    "mass of several": (lambda: packet(mass=[0.1, 0.2]), "`mass`", "(2,)", "jax.vmap"),
    # the bound 4πΔx√(m/β) ≥ ħ: here Δx ≥ 1/4π
    "width below the bound": (lambda: packet(width=0.05), "`width`", "0.0795775", "0.05", "Widen"),
    # reservoir
    "rate": (lambda: reservoir(rate=-2.0), "`rate`", "negative", "-2"),
    "rate nan": (lambda: reservoir(rate=np.nan), "`rate`", "NaN"),
    "incidence": (lambda: reservoir(incidence="up"), "`incidence`", "'up'", "'both'"),
    "no packet": (lambda: reservoir(packet=0.1), "`packet`", "0.1", "EffusionPacket"),
    "no scatterer": (lambda: reservoir(scatterer=FLIP), "`scatterer`", "jaxres.Slab"),
    # amplitudes
    "energy below every level": (
        lambda: jr.amplitudes(SYSTEM, SLAB, mass=0.1, energy=-0.3), "`energy`", "-0.3", "kinetic",
    ),
    "energy nan": (lambda: jr.amplitudes(SYSTEM, SLAB, mass=0.1, energy=np.nan), "`energy`", "NaN"),
    "energies": (
        lambda: jr.amplitudes(SYSTEM, SLAB, mass=0.1, energy=[1.0, 2.0]),
        "`energy`", "(2,)", "jax.vmap",
    ),
    "mass of amplitudes": (
        lambda: jr.amplitudes(SYSTEM, SLAB, mass=-1.0, energy=1.0), "`mass`", "positive", "-1",
    ),
    "method of amplitudes": (
        lambda: jr.amplitudes(SYSTEM, SLAB, mass=0.1, energy=1.0, amplitudes="exact"),
        "`amplitudes`", "'exact'", "jaxres.Exact()",
    ),
    "size of coupling": (
        lambda: jr.amplitudes(jr.System([0.0, 1.0, 2.0]), SLAB, mass=0.1, energy=3.0),
        "`coupling`", "(2, 2)", "3×3",
    ),
    # map and state
    "no system": (lambda: jr.scattering_map([0, 1], RESERVOIR), "`system`", "[0, 1]", "jaxres.System"),
    "no reservoir": (lambda: jr.scattering_map(SYSTEM, SLAB), "`reservoir`", "jaxres.Reservoir"),
    "method of map": (
        lambda: jr.scattering_map(SYSTEM, RESERVOIR, amplitudes=jr.Exact), "`amplitudes`", "Exact()",
    ),
    "rule of map": (
        lambda: jr.scattering_map(SYSTEM, RESERVOIR, quadrature=64), "`quadrature`", "64", "jaxres.",
    ),
    "tol while tracing": (
        lambda: jax.jit(lambda b: jr.scattering_map(SYSTEM, b, tol=1e-8).tensor)(RESERVOIR),
        "`tol`", "None", "jit",
    ),
    "nodes": (lambda: jr.DoubleExponential(nodes_between=2), "`nodes_between`", "at least 5", "2"),
    "nodes not whole": (lambda: jr.GaussLegendre(nodes_above=20.5), "`nodes_above`", "whole number", "20.5"),
    "method of state": (
        lambda: jr.steady_state(SYSTEM, RESERVOIR, amplitudes="exact"), "`amplitudes`", "'exact'",
    ),
    "rule of state": (lambda: jr.steady_state(SYSTEM, RESERVOIR, quadrature=1), "`quadrature`", "1"),
    "no reservoirs": (lambda: jr.steady_state(SYSTEM, []), "`reservoirs`", "[]"),
    "one reservoir is none": (lambda: jr.steady_state(SYSTEM, [RESERVOIR, 3]), "`reservoirs`", "3"),
    "no system of state": (lambda: jr.steady_state(RESERVOIR, SYSTEM), "`system`", "jaxres.System"),
    "infinite rate in time": (
        lambda: jr.evolve(SYSTEM, reservoir(rate=np.inf), GROUND, [1.0]), "`reservoir.rate`", "infinite",
    ),
    "time nan": (lambda: jr.evolve(SYSTEM, RESERVOIR, GROUND, [np.nan]), "`times`", "nan"),
    "time scalar": (lambda: jr.evolve(SYSTEM, RESERVOIR, GROUND, 1.0), "`times`", "(T,)", "()"),
    "start of the wrong size": (
        lambda: jr.evolve(SYSTEM, RESERVOIR, jnp.eye(3) / 3, [1.0]), "`rho0`", "(2, 2)", "(3, 3)",
    ),
    "start without trace": (
        lambda: jr.evolve(SYSTEM, RESERVOIR, jnp.eye(2), [1.0]), "`rho0`", "trace 1", "2",
    ),
    "start not Hermitian": (
        lambda: jr.evolve(SYSTEM, RESERVOIR, GROUND.at[0, 1].set(0.1), [1.0]), "`rho0`", "Hermitian",
    ),
    "beta of the Gibbs state": (lambda: jr.gibbs_state(SYSTEM, np.nan), "`beta`", "NaN"),
    # what is read off maps and states
    "state of the map": (lambda: FLIP_MAP(GROUND[0]), "`rho`", "(…, 2, 2)", "(2,)"),
    "map applied to a state by @": (lambda: FLIP_MAP @ GROUND, "`other`", "S(rho)"),
    "maps of two sizes": (
        lambda: FLIP_MAP @ jr.Superoperator.identity(3), "`other`", "2 levels", "3",
    ),
    "tensor of a map": (
        lambda: jr.Superoperator(jnp.ones((2, 2, 3, 3))), "`tensor`", "(2, 2, 3, 3)",
    ),
    "one Kraus operator": (
        lambda: jr.Superoperator.from_kraus(FLIP), "`operators`", "(K, N, N)", "(2, 2)",
    ),
    "populations for a state": (
        lambda: jr.energy_distribution(SYSTEM, FLIP_MAP, GROUND[0]), "`rho`", "(2, 2)", "(2,)",
    ),
    "states of a collision": (
        lambda: jr.collision_thermodynamics(SYSTEM, FLIP_MAP, jnp.stack([GROUND] * 3), 0.1),
        "`rho`", "(3, 2, 2)", "jax.vmap",
    ),
    "one temperature for two": (
        lambda: jr.currents(SYSTEM, [RESERVOIR, RESERVOIR], betas=0.1), "`betas`", "(B,)", "()",
    ),
    "beta of a relative entropy": (
        lambda: jr.relative_entropy_to_gibbs(SYSTEM, GROUND, np.inf), "`beta`", "finite", "inf",
    ),
    "operator of a qubit": (
        lambda: jr.systems.on_site(jnp.eye(3), 0, 2), "`operator`", "(2, 2)", "(3, 3)",
    ),
    "order of a cumulant": (
        lambda: jr.counting_statistics(SYSTEM, RESERVOIR, 1), "`order`", "at least 2", "1",
    ),
    # the Letter's model
    "splitting": (lambda: jr.letter.model(splitting=-0.6), "`splitting`", "negative", "-0.6"),
    "coupling of the model": (lambda: jr.letter.model(coupling=np.nan), "`coupling`", "NaN"),
    "width of the model": (lambda: jr.letter.model(width=0.05), "`width`", "0.05", "Widen"),
}  # fmt: skip


def messages():
    """What each of the cases raises, as {name: [type, message]}."""
    found = {}
    for name, (call, *_) in CASES.items():
        try:
            call()
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    return found


@pytest.fixture(scope="module")
def raised():
    """As a user sees it: in a process of its own, where no annotation is checked."""
    code = (
        "import jax; jax.config.update('jax_enable_x64', True); "
        "import json, test_validation; print(json.dumps(test_validation.messages()))"
    )
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_message_names_argument_value_and_remedy(raised, name):
    assert name in raised, "nothing was raised"
    kind, message = raised[name]
    assert kind == "ValueError", message
    assert message.startswith("Argument")
    for part in CASES[name][1:]:
        assert part in message, message


def test_what_is_just_admissible_is_accepted():
    jr.System([0.2, 0.2])
    packet(width=1 / (4 * np.pi))
    reservoir(rate=0.0)
    reservoir(rate=np.inf)
    jr.System.from_hamiltonian(FLIP + 1e-16 * jnp.triu(FLIP))
    jr.letter.model(splitting=0.0)
    assert jr.amplitudes(SYSTEM, SLAB, mass=0.1, energy=-0.3 + 1e-9).transmission.shape == (2, 2)


def test_every_result_explains_itself():
    for message in jr.RESULTS._index_to_message[1:]:
        assert re.search(r"[A-Z].*\.$", message, re.DOTALL), message


def test_batches_are_refused_with_a_hint_but_can_be_mapped():
    widths = jnp.array([0.5, 1.0])
    with pytest.raises(ValueError, match=r"`width` must have shape \(\), .* Use jax.vmap"):
        packet(width=widths)
    many = jax.vmap(lambda width: packet(width=width))(widths)
    assert many.width.shape == (2,)


LOWEST = [[1, 0], [0, 0]]
BAD = [None, "a", object(), 10**400, [], [[1], [1, 2]], {}]


@pytest.mark.parametrize(
    ("function", "good"),
    [
        (jr.steady_state, {}),
        (jr.generator, {}),
        (jr.spectrum, {}),
        (jr.relaxation_time, {}),
        (jr.evolve, dict(rho0=LOWEST, times=[0, 1])),
        (jr.collisions, {}),
        (jr.currents, {}),
        (jr.counting_statistics, {}),
        (jr.limit_cycle, {}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_whatever_is_given_for_one_argument_is_refused_by_its_name(function, good):
    good = dict(system=SYSTEM, reservoirs=RESERVOIR) | good
    for name in (*good, "amplitudes", "quadrature", "throw"):
        if name == "throw" and function in (jr.collisions, jr.generator, jr.limit_cycle):
            continue
        for bad in BAD:
            if name == "times" and bad == []:
                continue  # no times are no states
            with pytest.raises(ValueError, match=f"Argument `{name}` must"):
                function(**(good | {name: bad}))


def test_lists_and_whole_numbers_are_states_and_times():
    times = [0, np.float32(1), jnp.asarray(2)]
    there = jr.evolve(SYSTEM, RESERVOIR, LOWEST, times)
    again = jr.evolve(SYSTEM, RESERVOIR, GROUND, jnp.array([0.0, 1.0, 2.0]))
    assert np.array_equal(there, again)
