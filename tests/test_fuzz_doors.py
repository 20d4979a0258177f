"""Anything at every door: what is refused is refused by a `ValueError` that names the argument."""

import collections
import datetime
import decimal
import fractions

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres as jr

try:
    import qutip
except ImportError:
    qutip = None


class Like:
    """Looks like an array of pandas, and is one of objects."""

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, "x"], [None, 2]], dtype=object)


class Broken:
    """Fails wherever it is touched."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no array")

    def __repr__(self):
        raise RuntimeError("no text")


class Float:
    def __float__(self):
        return 0.5


class Index:
    def __index__(self):
        return 3


def endless():
    x = []
    x.append(x)
    return x


SYSTEM, RESERVOIR = jr.letter.model()
PACKET, SLAB = RESERVOIR.packet, RESERVOIR.scatterer
W = np.array([[0.3, 1 + 0.5j], [1 - 0.5j, -0.7]])
ONE = np.eye(2)
P = np.linspace(5.0, 13.0, 33)
X = np.linspace(-6.0, 6.0, 49)
PHI = (2 / np.pi) ** 0.25 * np.exp(-((P - 9) ** 2))
MASKED = np.ma.masked_array([0.1, 0.2], mask=[False, True])
NOTHING = [
    *(None, "", "1.0", "left", "K", b"1", object(), Like(), Broken(), Float(), Index(), int, len),
    *(..., NotImplemented, slice(3), range(3), {}, {"a": 1.0}, {1.0, 2.0}, set(), frozenset({1})),
    *([None], [1.0, [2.0]], [[1.0], [2.0, 3.0]], ["a", 1.0], [[]], [], (), [[], []], [[[1.0]]]),
    *(10**400, -(10**400), 10**5000, [10**400], [10**5000, 1], 10**30, 2**63, -(2**64)),
    *(1j, 1 + 0j, [0.3, 1j], [[1j, 0], [0, 1]], np.complex64(1), jnp.asarray(1j)),
    *(np.nan, np.inf, -np.inf, -1.0, 0.0, -0.0, 5e-324, 1e308, -1e308, 1e-200, 1e200),
    *(True, False, np.bool_(True), 0, 1, -1, 2, 7, np.int8(3), np.uint64(2**63), jnp.asarray(3)),
    *(1.5, np.float16(0.5), np.float32(1.5), np.longdouble(1.5), jnp.float32(0.5), 0.5, 30.0),
    *(fractions.Fraction(1, 2), decimal.Decimal("0.5"), datetime.date(2020, 1, 1)),
    *(np.datetime64("2020"), np.timedelta64(3, "s"), np.str_("a"), np.array("a"), np.array(None)),
    *(np.array(["a", "b"]), np.array([None, 1.0]), np.array([1.0, "x"], object), MASKED),
    *(np.zeros(2, dtype=[("a", float)]), np.empty((0, 0)), np.empty((2, 0)), np.empty(0)),
    *(np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 3)), np.ones((2, 2, 2)), np.ones(3)),
    *(ONE, 2 * ONE, ONE * np.nan, np.diag([1.0, np.inf]), W, W.T, 1j * W, W.astype("complex64")),
    *(ONE.astype(int), ONE > 0, ONE.tolist(), np.matrix(ONE), np.eye(3), np.eye(4), np.eye(1)),
    *([0.0, 1.0], [1, 2], [2.0, 1.0], [0.0, 0.0], (0, 0, 1), [0.0, 0.0, 0.0], [np.nan] * 3),
    *([5.0, 13.0], (13.0, 5.0), [[0.0, 0.0, 1.0]] * 2, P, P[::-1], P**2, X, X[:3], P * np.nan),
    *(("K", 300), (300, "K"), (300, "parsec"), (-1, "K"), (1, "m"), (10**400, "m"), (1e300, "J")),
    *((1e-300, "kg"), ("1", "m"), (1j, "m"), ([1.0], "m"), (1, 2, 3), (None, None), (1, ["m"])),
    *(SYSTEM, RESERVOIR, PACKET, SLAB, [SLAB], [SLAB, None], jr.Exact(), jr.Exact, jr.DoubleExponential()),
    *(jr.Superoperator.identity(2), jr.MonochromaticBeam(1.0, 1.0), jr.System([0.0, 1.0, 2.0])),
    *(jax.random.key(0), jax.random.PRNGKey(0), eqx.Module, lambda x: x),
    *(lambda p, q: p, lambda p, q: p * q * 0, lambda p, q: None, lambda p, q: 1.0, lambda: 1.0),
    *("right", "both", "J", "nm", "m/s", jnp.zeros((2, 2)), jnp.asarray([0.0, 1.0], "float32")),
]  # fmt: skip
if qutip is not None:
    FLIP = qutip.kraus_to_super([qutip.sigmax()])
    NOTHING += [qutip.sigmax(), qutip.qeye(3), qutip.basis(2, 0), qutip.basis(2, 0).dag(), FLIP]
    NOTHING += [qutip.tensor(FLIP, FLIP), qutip.super_tensor(FLIP, FLIP), [qutip.sigmax()]]
    NOTHING += [[qutip.sigmax(), qutip.qeye(3)], qutip.to_choi(FLIP), qutip.Qobj(np.ones((2, 3)))]
    NOTHING += [qutip.tensor(qutip.qeye(2), qutip.qeye(2)), [qutip.basis(2, 0)], [FLIP]]
NOTHING += [endless(), (x for x in ())]


def gaussian(p, q):
    return jnp.sqrt(2 / jnp.pi) * jnp.exp(-((p - 9) ** 2) - (q - 9) ** 2)


def wigner(p, x):
    return jnp.exp(-(x**2) / 2 - 2 * (p - 9) ** 2) / jnp.pi


def units(**x):
    value, unit = x.pop("value"), x.pop("unit")
    made = jr.units.Units(**x)
    return made.to_model(value, unit), made.from_model(value, unit)


THERMAL = dict(beta=0.4, mass=0.5, width=1.1, position=-2.0)
OWN = dict(mass=0.5, position=-2.0)
MODEL = dict(splitting=0.6, coupling=1.0, length=1.0, position=-10.0, rate=5.0, incidence="left")
#: what is called, and with which arguments it works
DOORS = {
    "System": (jr.System, dict(levels=[-0.3, 0.3], basis=ONE)),
    "from_hamiltonian": (jr.System.from_hamiltonian, dict(H=W, resolve=ONE)),
    "to_eigenbasis": (SYSTEM.to_eigenbasis, dict(operator=W)),
    "from_eigenbasis": (SYSTEM.from_eigenbasis, dict(operator=W)),
    "Slab": (jr.Slab, dict(coupling=W, length=1.0)),
    "Stack": (jr.Stack, dict(slabs=[SLAB])),
    "Profile": (jr.Profile, dict(coupling=W, heights=[1.0, 2.0], length=1.0)),
    "EffusionPacket": (jr.EffusionPacket, THERMAL),
    "MaxwellPacket": (jr.MaxwellPacket, THERMAL),
    "ThermalMixture": (jr.ThermalMixture, THERMAL),
    "GaussianPacket": (jr.GaussianPacket, dict(momentum=7.0, mass=0.5, width=0.9, position=0.0)),
    "MonochromaticBeam": (jr.MonochromaticBeam, dict(momentum=7.0, mass=0.5)),
    "DiagonalPacket": (jr.DiagonalPacket, dict(packet=PACKET)),
    "CustomPacket": (jr.CustomPacket, dict(function=gaussian, momenta=(5.0, 13.0)) | OWN),
    "pure": (
        jr.CustomPacket.pure,
        dict(amplitude=lambda p: gaussian(p, p) ** 0.5, momenta=(5.0, 13.0)) | OWN,
    ),
    "from_table": (
        jr.CustomPacket.from_table,
        dict(momenta=P, values=np.multiply.outer(PHI, PHI)) | OWN,
    ),
    "from_wigner": (
        jr.CustomPacket.from_wigner,
        dict(function=wigner, momenta=(5.0, 13.0), positions=X) | OWN,
    ),
    "from_wigner_table": (
        jr.CustomPacket.from_wigner_table,
        dict(momenta=P, positions=X, values=np.asarray(wigner(P[:, None], X[None]))) | OWN,
    ),
    "Reservoir": (
        jr.Reservoir,
        dict(packet=PACKET, scatterer=SLAB, rate=2.0, incidence="left", internal=None),
    ),
    "InternalState": (jr.InternalState, dict(levels=SYSTEM, state=ONE / 2)),
    "thermal": (jr.InternalState.thermal, dict(levels=SYSTEM, beta=0.3)),
    "DoubleExponential": (jr.DoubleExponential, dict(nodes_between=20, nodes_above=20, finer=1)),
    "GaussLegendre": (jr.GaussLegendre, dict(nodes_between=20, nodes_above=20)),
    "Exact": (jr.Exact, dict(tabulated=None)),
    "WaveVectorOperator": (jr.WaveVectorOperator, dict(unitary=True)),
    "RandomInteractionTime": (jr.RandomInteractionTime, dict(unitary=True)),
    "qubit": (jr.systems.qubit, dict(splitting=0.6, direction=[0.0, 0.0, 1.0])),
    "spin": (jr.systems.spin, dict(j=1, splitting=0.6, direction=[0.0, 0.0, 1.0])),
    "oscillator": (jr.systems.oscillator, dict(size=3, frequency=0.6)),
    "chain": (jr.systems.chain, dict(sites=2, field=[0, 0, 1], exchange=[1, 1, 0])),
    "pauli": (jr.systems.pauli, dict(vector=[0, 0, 1])),
    "spin_operator": (jr.systems.spin_operator, dict(j=1, vector=[0, 0, 1])),
    "annihilation": (jr.systems.annihilation, dict(size=3)),
    "on_site": (jr.systems.on_site, dict(operator=ONE, site=0, sites=2)),
    "units": (units, dict(first=(300, "K"), second=(1, "nm"), value=1.0, unit="K")),
    "letter": (jr.letter.model, MODEL | dict(beta=0.1, mass=0.1, width=1.0)),
    "Collisions": (
        jr.Collisions,
        dict(maps=[jr.Superoperator.identity(2)], rates=[2.0], valid=True, reservoirs=None),
    ),
    "with_rates": (jr.Collisions(jr.Superoperator.identity(2), 1.0).with_rates, dict(rates=2.0)),
    "collisions": (
        jr.collisions,
        dict(system=SYSTEM, reservoirs=[RESERVOIR], amplitudes=jr.Exact())
        | dict(quadrature=jr.DoubleExponential(), tol=None),
    ),
    "amplitudes": (
        jr.amplitudes,
        dict(system=SYSTEM, scatterer=SLAB, mass=0.1, energy=1.0, amplitudes=jr.Exact()),
    ),
    "scattering_map": (
        jr.scattering_map,
        dict(
            system=SYSTEM,
            reservoir=RESERVOIR,
            amplitudes=jr.Exact(),
            quadrature=jr.DoubleExponential(),
        )
        | dict(tol=None, max_refinements=0),
    ),
}
if qutip is not None:
    DOORS["to_qutip"] = jr.to_qutip, dict(x=W, system=SYSTEM, dims=[2])
    DOORS["from_qutip"] = jr.from_qutip, dict(Q=qutip.sigmax(), system=SYSTEM)
# these compile, or solve an eigenvalue problem
COSTLY = ["CustomPacket", "pure", "from_table", "from_wigner", "from_wigner_table"]
COMPILED = ["amplitudes", "scattering_map", "collisions"]


def trial(rng, door):
    """One call with one argument or more replaced by anything: None, or what came out that should not have."""
    call, right = DOORS[door]
    names = list(right)
    # equinox flattens what its modules are given before anything else, and fails at these itself
    most = len(NOTHING) - 2 if isinstance(call, type) or door == "letter" else len(NOTHING)
    wrong = {str(n): int(rng.integers(most)) for n in rng.choice(names, rng.integers(1, 3))}
    arguments = right | {name: NOTHING[i] for name, i in wrong.items()}
    traced = None
    if rng.random() < 0.1:
        traced = str(rng.choice(names))
    try:
        if traced is None:
            call(**arguments)
        else:  # one of them is traced, of any shape

            def inside(x):
                call(**arguments | {traced: x})
                return 0

            shape = [(), (2,), (2, 2), (3,)][rng.integers(4)]
            jax.eval_shape(inside, jax.ShapeDtypeStruct(shape, [float, int][rng.integers(2)]))
    except ValueError as error:
        if str(error).startswith("Argument `") and " must " in str(error):
            return None
        return door, wrong, traced, f"ValueError: {error}"
    except Exception as error:
        return door, wrong, traced, f"{type(error).__name__}: {error}"
    return None


def campaign(seed, count, doors):
    """The unnamed failures among so many calls."""
    rng = np.random.default_rng(seed)
    return [x for x in (trial(rng, doors[i % len(doors)]) for i in range(count)) if x]


@pytest.mark.slow
def test_all_doors_are_open_to_what_is_right():
    for call, arguments in DOORS.values():
        call(**arguments)


def test_what_is_refused_is_refused_by_name():
    doors = [x for x in DOORS if x not in COSTLY + COMPILED]
    assert campaign(1, 400, doors) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_what_is_refused_is_refused_by_name_many_times(seed):
    assert campaign([2, seed], 1000, list(DOORS)) == []


def test_the_fuzzer_sees_what_is_not_named():
    # a control: a door that converts nothing
    bare = dict(bare=(lambda x: float(x), dict(x=1.0)))
    saved = dict(DOORS)
    try:
        DOORS.clear()
        DOORS.update(bare)
        kinds = collections.Counter(x[-1].split(":")[0] for x in campaign(1, 100, ["bare"]))
    finally:
        DOORS.clear()
        DOORS.update(saved)
    assert kinds["TypeError"] > 5 and kinds["ValueError"] > 0
