"""What a store and a dataset say about what was computed, and the model that is rebuilt from it."""

import json
import os
import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import jaxres as jr
from jaxres._files import StoreError
from jaxres._sweep.model import describe, rebuild
from jaxres._sweep.store import Store

sweep = partial(jr.sweep, progress=False)
V = jnp.array([[0.1, 1 + 1j, 0.3], [1 - 1j, -0.2, 0.5j], [0.3, -0.5j, 0.4]])
LEVELS = jnp.array([-0.4, 0.1, 0.7])
WAVE = {"mass": 0.5, "width": 1.3, "position": -9.0}
POINTS = jnp.linspace(4.0, 14.0, 60)
TABLE = jnp.exp(-((POINTS[:, None] - 9) ** 2) - (POINTS[None] - 9) ** 2) * jnp.sqrt(2 / jnp.pi)

OBJECTS = [
    jr.System(LEVELS),
    jr.System.from_hamiltonian(V),
    jr.EffusionPacket(beta=0.1, **WAVE),
    jr.MaxwellPacket(beta=0.1, **WAVE),
    jr.ThermalMixture(beta=0.1, **WAVE),
    jr.GaussianPacket(momentum=3.0, **WAVE),
    jr.DiagonalPacket(jr.EffusionPacket(beta=0.1, **WAVE)),
    jr.MonochromaticBeam(momentum=3.0, mass=0.5),
    jr.CustomPacket.from_table(POINTS, TABLE, mass=0.5),
    jr.Slab(V, 1.5),
    jr.Stack([jr.Slab(V, 1.5), jr.Slab(2 * V, 0.5)]),
    jr.Profile(V, jnp.array([0.1, 0.7, 0.2]), 2.0),
    jr.InternalState(jr.System([0.0, 0.4]), jnp.array([[0.7, 0.1j], [-0.1j, 0.3]])),
    jr.Exact(),
    jr.Exact(tabulated=True),
    jr.TransferMatrix(),
    jr.WaveVectorOperator(unitary=True),
    jr.RandomInteractionTime(),
    jr.DoubleExponential(),
    jr.GaussLegendre(nodes_between=40),
    jr.waiting_times.GammaDistributed(2.5),
    jr.waiting_times.Regular(),
    jr.losses.Thermostat(beta=0.1),
    jr.losses.CoherenceAt(0.1, 0, 1),
    jnp.zeros((0, 2)),
    np.array([True, False]),
    (1, 2.5, 3 - 1j, "text", None, True, [np.float32(0.1), jnp.asarray(2)], {"a": (np.inf,)}),
    partial(jr.letter.model, rate=3.0),
]


def same(a, b):
    la, ta = jax.tree_util.tree_flatten(a)
    lb, tb = jax.tree_util.tree_flatten(b)
    assert describe(a) == describe(b)
    if not any(callable(x) for x in la):
        assert ta == tb
        for x, y in zip(la, lb, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("x", OBJECTS, ids=lambda x: type(x).__name__)
def test_every_object_comes_back_from_its_description(x):
    told = json.loads(json.dumps(describe(x)))
    same(rebuild(told), x)


def test_all_classes_of_the_package_that_a_model_has_are_among_them():
    kinds = (jr.AbstractPacket, jr.AbstractScatterer, jr.AbstractAmplitudes, jr.AbstractQuadrature)
    classes = [x for x in vars(jr).values() if isinstance(x, type) and issubclass(x, kinds)]
    concrete = {x for x in classes if not x.__name__.startswith("Abstract")}
    assert concrete <= {type(x) for x in OBJECTS}


RESERVOIR = jr.Reservoir(OBJECTS[2], jr.Slab(V, 1.5), rate=2.0, incidence="both")


def check_model(model, rate=2.0, width=1.3):
    system, reservoir = model
    same(system, OBJECTS[0])
    expected = eqx.tree_at(
        lambda b: (b.rate, b.packet.width), RESERVOIR, (jnp.asarray(rate), jnp.asarray(width))
    )
    same(reservoir, expected)


def read_again(store, tmp_path):
    """By way of zarr and of a NetCDF file."""
    yield xarray.open_zarr(store, consolidated=False)
    Store(store).dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    yield xarray.load_dataset(tmp_path / "a.nc", engine="h5netcdf")


class TestSweep:
    def test_of_a_model(self, tmp_path):
        data = sweep((OBJECTS[0], RESERVOIR), {"rate": [1.0, 5.0], "packet.width": [1.0, 2.0]},
                     of=lambda system, reservoir: reservoir.rate, store=tmp_path / "s")  # fmt: skip
        for each in (data, *read_again(tmp_path / "s", tmp_path)):
            check_model(jr.model_of(each), 1.0, 1.0)
            check_model(jr.model_of(each, {"rate": 5.0, "packet.width": 2.0}), 5.0, 2.0)
        manifest = json.loads((tmp_path / "s/sweep/manifest.json").read_text())
        assert manifest["model"] == json.loads(data.attrs["model"])
        system, reservoir = manifest["model"]["model"]["tuple"]
        assert system["fields"]["levels"]["values"] == LEVELS.tolist()
        assert reservoir["fields"]["scatterer"]["fields"]["coupling"]["imag"] == V.imag.tolist()
        assert reservoir["fields"]["packet"]["class"] == "EffusionPacket"
        assert reservoir["fields"]["incidence"] == "both"
        with pytest.raises(ValueError, match=r"`point` must name fields .*'speed'"):
            jr.model_of(data, {"speed": 1.0})

    def test_of_a_model_with_a_field_held_otherwise(self):
        data = sweep(
            (OBJECTS[0], RESERVOIR),
            {"packet.width": [1.0]},
            of=lambda s, b: b.rate,
            fixed={"rate": 7.0},
        )
        check_model(jr.model_of(data), 7.0, 1.0)

    def test_of_an_object_alone(self):
        packet = OBJECTS[2]
        data = sweep(packet, {"width": [1.3, 2.0]}, of=lambda packet: packet.width)
        same(jr.model_of(data), packet)
        assert float(jr.model_of(data, {"width": 2.0}).width) == 2.0

    def test_of_the_letter(self, tmp_path):
        data = sweep(jr.letter.model, {"rate": [1.0, 5.0]}, fixed={"splitting": 1.2, "incidence": "right"},
                     of=lambda s, b: b.rate, store=tmp_path / "s")  # fmt: skip
        for each in (data, *read_again(tmp_path / "s", tmp_path)):
            same(jr.model_of(each), jr.letter.model(rate=1.0, splitting=1.2, incidence="right"))
            point = {"rate": 5.0, "splitting": 0.7}
            same(jr.model_of(each, point), jr.letter.model(**point, incidence="right"))

    def test_of_a_function_that_returns_a_model(self):
        def model(width, rate=2.0, side="both"):
            packet = jr.EffusionPacket(beta=0.1, mass=0.5, width=width, position=-9.0)
            return jr.System(LEVELS), jr.Reservoir(packet, jr.Slab(V, 1.5), rate, side)

        data = sweep(model, {"width": [1.0, 2.0]}, of=lambda s, b: b.rate)
        check_model(jr.model_of(data), width=1.0)  # the first point needs nothing else
        check_model(jr.model_of(data, {"width": 1.0}), width=1.0)
        check_model(jr.model_of(data, {"width": 2.0}, function=model), width=2.0)
        with pytest.raises(ValueError, match="`function` must be given for another point"):
            jr.model_of(data, {"width": 2.0})
        about = json.loads(data.attrs["model"])
        assert "jr.EffusionPacket(beta=0.1" in about["function"]["text"]
        assert about["function"]["uses"]["LEVELS"]["values"] == LEVELS.tolist()

    @pytest.mark.slow
    def test_algorithms(self):
        model = jr.TransferMatrix()

        def near(system, reservoir):
            return jr.coherence(jr.steady_state(system, reservoir, amplitudes=model).rho)

        of = partial(jr.steady_state, quadrature=jr.GaussLegendre(nodes_between=40))
        about = [json.loads(sweep(jr.letter.model, {"rate": [1.0]}, of=each).attrs["model"])
                 for each in (None, near, of)]  # fmt: skip
        for each in about:
            same(rebuild(each["defaults"]["amplitudes"]), jr.Exact())
            same(rebuild(each["defaults"]["quadrature"]), jr.DoubleExponential())
        assert about[0]["of"] is None
        assert about[1]["of"]["uses"]["model"] == {"class": "TransferMatrix", "fields": {}}
        same(
            rebuild(about[2]["of"]["value"]["given"]["quadrature"]),
            jr.GaussLegendre(nodes_between=40),
        )

    def test_of_numbers_has_none(self):
        with pytest.raises(
            ValueError, match=r"`function` must be given, since .* returned numbers"
        ):
            jr.model_of(sweep(lambda x: x, {"x": [1.0]}))


class Mine(jr.Exact):
    """A user's own amplitudes."""


class TestTrust:
    def test_nothing_that_a_description_names_is_imported(self, tmp_path):
        (tmp_path / "payload_of_mine.py").write_text("open('ran', 'w')\nclass f: pass\n")
        code = """
import json, sys, xarray
import jaxres as jr
from jaxres._sweep.model import rebuild
for tree in ({"class": "payload_of_mine:f", "fields": {}}, {"function": "payload_of_mine:f"},
             {"function": "subprocess:run"}, {"class": "subprocess:Popen", "fields": {"args": "true"}},
             {"partial": {"function": "os:system"}, "given": {"0": "touch ran"}},
             {"class": "builtins:eval", "fields": {}}, {"function": "jaxres._sweep.store:_local"},
             {"function": "jaxres.letter:inspect.os.system"}):
    about = {"function": {"name": "payload_of_mine:f"}, "model": tree, "at": {}, "parameters": {"x": tree}}
    for call in (lambda: rebuild(tree),
                 lambda: jr.model_of(xarray.Dataset(attrs={"model": json.dumps(about)}))):
        try:
            call()
        except ValueError as error:
            assert "must have" in str(error), error
        else:
            raise AssertionError(tree)
assert "payload_of_mine" not in sys.modules
"""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
        assert not (tmp_path / "ran").exists()

    def test_the_users_own_classes_are_handed_over(self):
        told = describe(Mine())
        name = told["class"]
        assert name.endswith(":Mine")
        with pytest.raises(StoreError, match=r"`known` must have .*Mine'"):
            rebuild(told)
        assert type(rebuild(told, {name: Mine})) is Mine

    @pytest.mark.parametrize(
        "junk", ["", "[]", "{}", "3", "null", '{"function": {}}', "[" * 10**5, "NaN"]
    )
    def test_a_damaged_description_is_told(self, junk):
        with pytest.raises(ValueError, match="Argument `data` must have the description"):
            jr.model_of(xarray.Dataset(attrs={"model": junk}))

    def test_data_of_something_else_are_told(self):
        for data in (xarray.Dataset(), None, "folder"):
            with pytest.raises(ValueError, match="Argument `data` must be the dataset of a sweep"):
                jr.model_of(data)
