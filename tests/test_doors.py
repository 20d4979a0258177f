"""Every number of every object: the same result known or traced, and never a silent one where it is not admissible."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest
from jax.tree_util import Partial

import jaxres as jr

W = np.array([[0.3, 1 + 0.5j], [1 - 0.5j, -0.7]])
SKEW = np.array([[0.3, 1.0], [0.5, -0.7]]) + 0j
TURN = np.array([[0.8, 0.6j], [0.6j, 0.8]])
ONE = np.eye(2) + 0j
INFINITE = np.array([[np.inf, 0], [0, 1]]) + 0j
NAN, INF = np.nan, np.inf
P = np.linspace(5.0, 13.0, 33)
X = np.linspace(-6.0, 6.0, 49)
PHI = (2 / np.pi) ** 0.25 * np.exp(-((P - 9) ** 2))
TABLE = np.multiply.outer(PHI, PHI)
WIGNER = np.exp(-np.add.outer(2 * (P - 9) ** 2, X**2 / 2)) / np.pi
UNEVEN = P + 0.01 * np.cos(P)
NUMBER = [-1.0, 0.0, NAN, INF]  # what no positive number is
PLACE = [NAN, INF]

QUBIT = dict(levels=np.array([-0.3, 0.3]), basis=TURN)
SLAB = dict(coupling=W, length=1.0)
THERMAL = dict(beta=0.4, mass=0.5, width=1.1, position=-2.0)
BAD_LEVELS = [np.array(x) for x in ([0.3, -0.3], [NAN, 0.3], [-0.3, INF])]
BAD_SLAB = dict(coupling=[SKEW, NAN * W, INFINITE], length=NUMBER)
BAD_THERMAL = dict(beta=NUMBER, mass=NUMBER, width=NUMBER, position=PLACE)


def parts(*names):
    """What takes these names out of the numbers."""
    return lambda numbers: {name: numbers[name] for name in names}


qubit, slab = parts("levels", "basis"), parts("coupling", "length")
thermal = parts("beta", "mass", "width", "position")


def hit(packet, numbers, **changes):
    """Packets of a kind, on a slab and a qubit."""
    arguments = dict(packet=packet, scatterer=jr.Slab(**slab(numbers)), rate=numbers["rate"])
    return jr.System(**qubit(numbers)), jr.Reservoir(**arguments | changes)


def with_packet(kind, own, bad):
    def build(numbers):
        return hit(kind(**{name: numbers[name] for name in own}), numbers)

    return build, QUBIT | SLAB | own | dict(rate=2.0), bad


def custom(kind):
    def build(numbers):
        given = {k: numbers[k] for k in ("mass", "position")}
        return hit(kind(numbers, **given), numbers)

    return build


def gaussian(width, p, q):
    exponent = -(width**2) * ((p - 9) ** 2 + (q - 9) ** 2)
    return jnp.sqrt(2 / jnp.pi) * width * jnp.exp(exponent)


def wigner(width, p, x):
    return jnp.exp(-(x**2) / 2 / width**2 - 2 * width**2 * (p - 9) ** 2) / jnp.pi


OWN = QUBIT | SLAB | dict(rate=2.0, mass=0.5, position=-2.0)
BAD_OWN = dict(mass=NUMBER, position=PLACE)
RANGE = np.array([5.0, 13.0])
BAD_RANGE = [RANGE[::-1], np.array([-1.0, 13.0]), np.array([5.0, INF]), np.array([9.0, 13.0])]


def unit(numbers):
    packet = jr.ThermalMixture(**thermal(numbers))
    inner = jr.InternalState(
        jr.System(numbers["unit_levels"], numbers["unit_basis"]), numbers["state"]
    )
    return hit(packet, numbers, internal=inner)


def layered(numbers):
    stack = jr.Stack([jr.Slab(**slab(numbers)), jr.Slab(numbers["second"], numbers["thickness"])])
    return hit(jr.EffusionPacket(**thermal(numbers)), numbers, scatterer=stack)


def profile(numbers):
    scatterer = jr.Profile(heights=numbers["heights"], **slab(numbers))
    return hit(jr.EffusionPacket(**thermal(numbers)), numbers, scatterer=scatterer)


def of_system(make):
    """A reservoir on a system of its own making, coupled to all levels."""

    def build(numbers):
        system = make(numbers)
        coupling = hermitian(3, system.size)
        packet = jr.EffusionPacket(beta=0.4, mass=0.5, width=1.1, position=-2.0)
        return system, jr.Reservoir(packet, jr.Slab(coupling, 1.0), 2.0)

    return build


def letter(numbers):
    return jr.letter.model(**numbers)


STATE = np.array([[0.6, 0.2j], [-0.2j, 0.4]])
BAD_STATES = [STATE * 2, STATE + SKEW * 0.1 - 0.01 * ONE, NAN * STATE, np.diag([1.5, -0.5]) + 0j]
Z = np.array([0.0, 0.0, 1.0])
H = np.array([[0.3, 0.1j], [-0.1j, -0.3]])
BAD_H = [SKEW, NAN * H, INFINITE]

#: how system and reservoir are made of numbers, admissible numbers, and for some of them numbers that are not
CASES = {
    "effusion": with_packet(
        jr.EffusionPacket,
        THERMAL,
        BAD_SLAB
        | BAD_THERMAL
        | dict(width=[*NUMBER, 0.05], rate=[-1.0, NAN], levels=BAD_LEVELS)
        | dict(basis=[2 * ONE, SKEW, NAN * ONE]),
    ),
    "maxwell": with_packet(jr.MaxwellPacket, THERMAL, BAD_THERMAL | dict(width=[*NUMBER, 0.4])),
    "gaussian": with_packet(
        jr.GaussianPacket,
        dict(momentum=7.0, mass=0.5, width=0.9, position=-2.0),
        dict(momentum=NUMBER, mass=NUMBER, width=NUMBER, position=PLACE),
    ),
    "mixture": with_packet(jr.ThermalMixture, THERMAL, BAD_THERMAL),
    "diagonal": with_packet(
        lambda **x: jr.DiagonalPacket(jr.EffusionPacket(**x)),
        THERMAL,
        BAD_THERMAL | dict(width=[*NUMBER, 0.05]),
    ),
    "beam": with_packet(
        jr.MonochromaticBeam,
        dict(momentum=1.5, mass=0.5),
        dict(momentum=NUMBER, mass=NUMBER),
    ),
    "custom": (
        custom(lambda x, **own: jr.CustomPacket(Partial(gaussian, x["width"]), momenta=x["range"], **own)),
        OWN | dict(width=1.0, range=RANGE),
        BAD_OWN | dict(width=[NAN, INF], range=BAD_RANGE),
    ),
    "table": (
        custom(
            lambda x, **own: jr.CustomPacket.from_table(x["momenta"], x["values"], **own),
        ),
        OWN | dict(momenta=P, values=TABLE + 0j),
        BAD_OWN
        | dict(
            momenta=[UNEVEN, P[::-1], NAN * P],
            values=[2 * TABLE + 0j, TABLE * (1 + 1j), -TABLE + 0j, TABLE * NAN + 0j],
        ),
    ),
    "wigner": (
        custom(
            lambda x, **own: jr.CustomPacket.from_wigner(
                Partial(wigner, x["width"]), momenta=x["range"], positions=x["positions"], **own
            )
        ),
        OWN | dict(width=1.0, range=RANGE, positions=X),
        BAD_OWN | dict(range=BAD_RANGE, positions=[X[::-1], X**3, X * NAN]),
    ),
    "wigner table": (
        custom(
            lambda x, **own: jr.CustomPacket.from_wigner_table(
                x["momenta"], x["positions"], x["values"], **own
            )
        ),
        OWN | dict(momenta=P, positions=X, values=WIGNER),
        BAD_OWN
        | dict(momenta=[UNEVEN, P[::-1]], positions=[X[::-1], X**3], values=[2 * WIGNER]),
    ),
    "unit": (
        unit,
        QUBIT
        | THERMAL
        | dict(coupling=np.asarray(hermitian(3, 4, scale=0.2)), length=1.0, rate=2.0)
        | dict(unit_levels=np.array([0.0, 0.5]), unit_basis=TURN, state=STATE),
        dict(unit_levels=BAD_LEVELS, unit_basis=[2 * ONE, NAN * ONE], state=BAD_STATES)
        | dict(levels=BAD_LEVELS, coupling=[np.asarray(hermitian(3, 4)) * 1j]),
    ),
    "stack": (
        layered,
        QUBIT | SLAB | THERMAL | dict(second=-W, thickness=0.5, rate=2.0),
        BAD_SLAB | dict(second=BAD_SLAB["coupling"], thickness=NUMBER),
    ),
    "profile": (
        profile,
        QUBIT | SLAB | THERMAL | dict(heights=np.array([0.2, 1.0, 0.4]), rate=2.0),
        BAD_SLAB | dict(heights=[np.array([0.2, NAN, 1.0]), np.array([0.2, INF, 1.0])]),
    ),
    "hamiltonian": (
        of_system(lambda x: jr.System.from_hamiltonian(x["H"], resolve=x["resolve"])),
        dict(H=H, resolve=W),
        dict(H=BAD_H, resolve=[SKEW, NAN * W]),
    ),
    "qubit": (
        of_system(lambda x: jr.systems.qubit(**x)),
        dict(splitting=0.6, direction=np.array([0.6, 0.0, 0.8])),
        dict(splitting=[-0.6, NAN, INF], direction=[0 * Z, NAN * Z, np.array([0.0, 0.0, INF])]),
    ),
    "oscillator": (
        of_system(lambda x: jr.systems.oscillator(3, **x)),
        dict(frequency=0.5),
        dict(frequency=[-0.5, NAN, INF]),
    ),
    "chain": (
        of_system(lambda x: jr.systems.chain(2, **x)),
        dict(field=0.4 * Z, exchange=np.array([0.1, 0.15, 0.0])),
        dict(field=[NAN * Z, np.array([0.0, 0.0, INF])], exchange=[NAN * Z, np.array([0.0, 0.0, INF])]),
    ),
    "letter": (
        letter,
        dict(splitting=0.6, coupling=1.0, length=1.0, position=-10.0, rate=5.0)
        | dict(beta=0.1, mass=0.1, width=1.0),
        dict(splitting=[-0.6, NAN, INF], coupling=[NAN, INF], length=NUMBER, position=PLACE)
        | dict(rate=[-1.0, NAN], beta=NUMBER, mass=NUMBER, width=[*NUMBER, 0.05]),
    ),
}  # fmt: skip
EVERY_DAY = ["effusion", "hamiltonian"]
SOME = [pytest.param(x, marks=[] if x in EVERY_DAY else pytest.mark.slow) for x in CASES]
NAMES = [pytest.param(x, marks=[] if x in EVERY_DAY else pytest.mark.campaign) for x in CASES]


def arrays(numbers):
    return {name: jnp.asarray(x) for name, x in numbers.items()}


def variations(name):
    """The admissible numbers, and each time one of them as it must not be."""
    _, numbers, bad = CASES[name]
    return [(field, numbers | {field: value}) for field in bad for value in bad[field]]


def steady(name, numbers):
    sol = jr.steady_state(*CASES[name][0](numbers))
    invalid = sol.result == jr.RESULTS.invalid_parameters
    return sol.rho, sol.result == jr.RESULTS.successful, invalid


def size_of_map(name, numbers):
    """A real number of the map in which every entry counts."""
    tensor = jr.scattering_map(*CASES[name][0](numbers)).tensor
    weights = np.cos(np.arange(tensor.size)).reshape(tensor.shape)
    return jnp.sum(weights * jnp.real(tensor) + weights.T * jnp.imag(tensor))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_number_alone_is_refused_where_it_is_known(name):
    for field, numbers in variations(name):
        with pytest.raises(ValueError, match=r"^Argument `") as info:
            CASES[name][0](numbers)
        assert "must" in str(info.value), field


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_each_number_alone_may_be_traced(name):
    build, numbers, _ = CASES[name]

    for field, value in arrays(numbers).items():

        def make(x, field=field):
            system, reservoir = build(numbers | {field: x})
            return system.valid() & reservoir.valid(system), eqx.filter(
                (system, reservoir), eqx.is_array
            )

        def slope(x, make=make):
            _, (system, reservoir) = make(x)
            leaves = jax.tree.leaves((system, reservoir))
            return sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves)

        jax.eval_shape(make, value)
        jax.eval_shape(jax.vmap(make), jnp.stack([value] * 2))
        jax.eval_shape(jax.grad(slope), value)
        jax.eval_shape(jax.vmap(jax.grad(slope)), jnp.stack([value] * 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_traced_numbers_give_the_eager_result_or_a_named_one(name):
    numbers = CASES[name][1]
    fields, bad = zip(*variations(name), strict=True)
    batch = jax.tree.map(lambda *x: jnp.stack(x), arrays(numbers), *map(arrays, bad))
    rho, good, invalid = jax.jit(jax.vmap(lambda x: steady(name, x)))(batch)
    eager, successful, _ = steady(name, numbers)
    assert successful and good[0]
    assert largest(rho[0] - eager) < 1e-10
    for field, state, named in zip(fields, rho[1:], invalid[1:], strict=True):
        assert named, field
        assert np.all(np.isnan(state)), field


@pytest.mark.campaign
@pytest.mark.parametrize("name", CASES)
def test_maps_of_traced_numbers_are_nan_with_their_derivatives(name):
    numbers = CASES[name][1]
    fields, bad = zip(*variations(name), strict=True)
    batch = jax.tree.map(lambda *x: jnp.stack(x), arrays(numbers), *map(arrays, bad))
    value_and_grad = jax.value_and_grad(lambda x: size_of_map(name, x))
    value, grad = jax.jit(jax.vmap(value_and_grad))(batch)
    np.testing.assert_allclose(value[0], size_of_map(name, numbers), rtol=1e-10)
    for field in numbers:
        assert np.all(np.isfinite(grad[field][0])), field
    for i, field in enumerate(fields, 1):
        assert np.isnan(value[i]), field
        # where the map does not depend on a number, as on a rate, its derivative is 0 whatever it is
        for other, slope in grad.items():
            assert np.all(np.isnan(slope[i]) | (slope[0] == 0)), (field, other)
        assert any(np.any(np.isnan(slope[i])) for slope in grad.values()), field
