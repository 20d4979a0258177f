"""Sweeps in one process: what they compute, how they are cut, stored and refused."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from sweep_functions import fragile, wave

import jaxres as jr
from jaxres._sweep import plan as _plan, prepare as _prepare
from jaxres._sweep.jaxpr import Cost, cost_by_axes
from jaxres._sweep.prepare import prepare
from jaxres._sweep.store import Store

sweep = partial(jr.sweep, progress=False)
X, Y = np.linspace(0.1, 2, 5), np.linspace(-1, 3, 7)


def expected(x, y, scale=1.0):
    """`wave`, computed by NumPy."""
    return {
        "height": scale * np.sin(x) * y**2,
        "complex": np.exp(1j * x * y),
        "number": np.floor(x),
    }


def check_wave(data, scale=1.0):
    x, y = np.meshgrid(X, Y, indexing="ij")
    for name, value in expected(x, y, scale).items():
        np.testing.assert_allclose(data[name], value, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(data["vector"], np.stack([x, y, x + y], axis=-1), rtol=1e-14)
    assert not data.failed.any()


class TestValues:
    @pytest.mark.parametrize("chunk", [None, 1, 4, 11, {"x": 2}, {"x": 3, "y": 2}])
    def test_any_tiling_gives_the_same_numbers(self, chunk):
        check_wave(sweep(wave, {"x": X, "y": Y}, chunk=chunk))

    def test_the_first_axis_is_the_outermost(self):
        data = sweep(wave, {"y": Y, "x": X}, fixed={"scale": 2.5})
        assert data.height.dims == ("y", "x")
        check_wave(data.transpose("x", "y", ...), 2.5)

    def test_zipped_axes_vary_together(self):
        data = sweep(wave, {("x", "y"): (X, Y[:5]), "scale": [1.0, 3.0]}, chunk=3)
        assert data.height.dims == ("x_y", "scale")
        assert data.x.dims == data.y.dims == ("x_y",)
        for i, scale in enumerate([1.0, 3.0]):
            np.testing.assert_allclose(
                data.height[:, i], expected(X, Y[:5], scale)["height"], rtol=1e-14
            )

    def test_labels(self):
        about = {"height": {"units": "m", "symbol": "f", "long_name": "a height", "dims": ()}}
        data = sweep(wave, {"x": X, "y": Y}, labels=about | {"vector": {"dims": ("component",)}})
        assert data.height.attrs == {"units": "m", "symbol": "f", "long_name": "a height"}
        assert data.vector.dims == ("x", "y", "component")
        assert data["complex"].dtype == np.complex128 and data.number.dtype == np.int64
        assert data.attrs["scale"] == 1.0

    def test_gradients_in_swept_and_fixed_parameters(self):
        for of in (None, lambda out: out["height"]):  # many outputs: forward; one number: backward
            data = sweep(wave, {"x": X, "y": Y}, of=of, gradient=["x", "scale"])
            name = "value" if of else "height"
            x, y = np.meshgrid(X, Y, indexing="ij")
            np.testing.assert_allclose(data[f"d{name}_dx"], np.cos(x) * y**2, rtol=1e-13)
            np.testing.assert_allclose(data[f"d{name}_dscale"], np.sin(x) * y**2, rtol=1e-13)
        data = sweep(wave, {"x": X, "y": Y}, gradient=["x"])
        np.testing.assert_allclose(data.dcomplex_dx, 1j * y * np.exp(1j * x * y), rtol=1e-13)
        assert data.dvector_dx.dims == data.vector.dims
        assert "dnumber_dx" not in data

    def test_a_second_sweep_of_a_function_does_not_compile_again(self):
        traces = []

        def counted(x, scale=1.0):
            traces.append(x)
            return x * scale

        counts = []
        for scale in (1.0, 2.0, 3.0):
            data = sweep(counted, {"x": X * scale}, fixed={"scale": scale})
            np.testing.assert_allclose(data.value, X * scale**2, rtol=1e-15)
            counts.append(len(traces))
        assert counts == [2, 3, 4]  # traced for each plan, and once for the compiler

    def test_a_function_that_has_changed_is_compiled_again(self):
        factor = [2.0]

        def scaled(x):
            return x * factor[0]

        for factor[0] in (2.0, 3.0):
            data = sweep(scaled, {"x": X})
            np.testing.assert_allclose(data.value, X * factor[0], rtol=1e-15)

    def test_axes_named_as_those_of_an_output(self):
        data = sweep(lambda j, k: {"rho": jnp.stack([j, k])[None]}, {"j": X, "k": Y})
        assert data.rho.dims == ("j", "k", "rho_0", "rho_1") and data.rho.shape == (5, 7, 1, 2)
        np.testing.assert_array_equal(data.rho[2, 3, 0], [X[2], Y[3]])

    def test_integers_where_the_default_is_a_number(self):
        data = sweep(wave, {"x": X, "y": Y}, fixed={"scale": 2})
        assert data.attrs["scale"] == 2.0
        check_wave(data, 2)

    def test_integer_values_are_numbers_like_others(self):
        assert sweep(lambda n: n / 2, {"n": [1, 2]}).value.values.tolist() == [0.5, 1.0]

    def test_several_devices(self):
        code = """
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np, jaxres as jr
from sweep_functions import wave
assert jax.local_device_count() == 3
x, y = np.linspace(0, 1, 10), np.linspace(0, 1, 11)
data = jr.sweep(wave, {"x": x, "y": y}, chunk=8, progress=False)
np.testing.assert_allclose(data.height, np.sin(x)[:, None] * y**2, rtol=1e-14)
np.testing.assert_allclose(data["complex"], np.exp(1j * np.outer(x, y)), rtol=1e-14)
"""
        environment = os.environ | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)


class TestThreads:
    @pytest.fixture(autouse=True)
    def three_cores(self, monkeypatch):
        monkeypatch.setattr(_prepare, "cores", lambda: 3)

    @pytest.mark.parametrize("chunk", [None, 8, 40])
    def test_give_what_one_gives(self, chunk):
        data = sweep(wave, {"x": X, "y": Y}, fixed={"scale": 2.0}, chunk=chunk)
        check_wave(data, 2)
        assert "failures" not in data.attrs  # nothing was computed point by point instead

    @pytest.mark.parametrize("double", [False, True])
    def test_have_the_precision_of_the_thread_that_called(self, double):
        jax.config.update("jax_enable_x64", not double)  # what other threads have
        try:
            with jax.enable_x64(double):
                data = sweep(lambda x: jnp.sin(x) * jnp.ones(3), {"x": X})
        finally:
            jax.config.update("jax_enable_x64", True)
        assert data.value.dtype == (np.float64 if double else np.float32)
        assert "failures" not in data.attrs
        np.testing.assert_allclose(data.value[:, 0], np.sin(X), rtol=1e-15 if double else 1e-6)

    @pytest.mark.parametrize(
        ("function", "threads"),
        [
            (jr.letter.model, 3),
            (lambda rate: jnp.linalg.inv(rate * jnp.eye(3)), 1),
            (lambda rate: jax.lax.map(lambda r: jnp.linalg.eigh(r * jnp.eye(3))[0], rate[None]), 1),
            (lambda rate: jax.pure_callback(np.sin, rate, rate), 1),
        ],
    )  # fmt: skip
    def test_are_not_used_for_lapack_and_callbacks(self, function, threads):
        assert prepare(function, {"rate": [1.0, 2.0]}).job.threads == threads

    def test_are_not_used_in_other_processes(self):
        assert prepare(wave, {"x": X, "y": Y}, elsewhere=True).job.threads == 1

    @pytest.mark.parametrize("lanes", [1, 2, 64])
    def test_leave_work_items_for_others(self, lanes):
        cost = Cost({frozenset({0}): 1}, {frozenset({0}): 8})
        axes = ({"x": np.arange(1e6)},)
        plan = _plan.cut(axes, cost, chunk=None, bytes_per_point=8, memory=2**30, lanes=lanes,
                         platform="cpu")  # fmt: skip
        assert plan.items >= 60


@pytest.fixture(scope="module")
def data():
    """The Letter's qubit over rates and widths, the first width too small for a state."""
    return sweep(jr.letter.model, {"rate": [1.0, 5.0], "width": [0.01, 0.5, 1.0]})


class TestModel:
    @pytest.mark.slow
    def test_the_steady_state_is_that_of_the_library(self, data):
        for rate in (1.0, 5.0):
            sol = jr.steady_state(*jr.letter.model(rate=rate))
            at = data.sel(rate=rate, width=1.0)
            np.testing.assert_allclose(at.rho, sol.rho, atol=1e-13)
            np.testing.assert_allclose(at.map_error, sol.map_error, rtol=1e-3)
        assert abs(data.rho.sel(rate=5.0, width=1.0, j=0, k=1)) == pytest.approx(
            0.0992995, abs=1e-7
        )

    def test_results_are_codes_with_meanings(self, data):
        meanings = data.result.attrs["flag_meanings"].split()
        codes = data.result.values
        assert meanings[codes[0, 1]] == "successful"
        assert meanings[codes[0, 0]] == "invalid_parameters"  # narrower than a state can be
        assert data.failed.values.tolist() == [[True, False, False]] * 2
        assert np.isnan(data.rho[:, 0].real).all()

    def test_letters_and_units(self, data):
        assert data.rate.attrs["symbol"] == "Γ" and data.width.attrs["symbol"] == "Δx"
        assert data.rate.attrs["units"] == "energy/ħ" and data.rho.dims[2:] == ("j", "k")
        assert data.attrs["splitting"] == 0.6

    def test_fields_of_a_model(self):
        def coherence(system, reservoir):
            return {"c": jr.coherence(jr.gibbs_state(system, reservoir.packet.beta)) + reservoir.rate**2,
                    "gap": system.levels[1] - system.levels[0], "width": reservoir.packet.width}  # fmt: skip

        data = sweep(
            jr.letter.model(rate=3.0),
            {"levels.1": [0.5, 1.0], "packet.width": [1.0, 2.0, 3.0]},
            of=coherence,
            gradient=["rate", "levels.0"],
        )
        np.testing.assert_allclose(data.gap[:, 0], [0.8, 1.3])
        np.testing.assert_allclose(data.width[1], [1, 2, 3])
        np.testing.assert_allclose(data.dc_drate, 6.0)
        np.testing.assert_allclose(data["dgap_dlevels.0"], -1.0)
        assert data["packet.width"].attrs["symbol"] == "Δx"


CALLS = []


class Counted(jr.Exact):
    """Exact amplitudes, which count how often they are computed."""

    def two_level_exits(self, kinetic, beyond, layers, levels, mass):
        def host(kinetic):
            CALLS.append(kinetic.shape)
            return kinetic

        energy, *across = kinetic
        kind = jax.ShapeDtypeStruct(energy.shape, energy.dtype)
        energy = jax.pure_callback(host, kind, energy, vmap_method="sequential")
        return super().two_level_exits((energy, *across), beyond, layers, levels, mass)


def counted_coherence(system, reservoir):
    return jr.coherence(jr.steady_state(system, reservoir, amplitudes=Counted()).rho)


class TestNesting:
    def count(self, function, axes, **options):
        """How often the first of two stages was evaluated, for a grid of 12 × 20."""
        calls = []

        def host(x):
            calls.append(float(x))
            return np.asarray(x)

        def counted(x):
            kind = jax.ShapeDtypeStruct((), jnp.result_type(float))
            return jax.pure_callback(host, kind, x, vmap_method="sequential")

        sweep(partial(function, counted), axes, **options)
        return len(calls)

    def test_what_an_axis_does_not_touch_is_computed_once(self):
        grid = {"a": np.arange(1.0, 13), "b": np.arange(20.0)}

        def alone(stage, a, b):
            return stage(a) * b

        def neither(stage, a, b):
            return stage(jnp.asarray(2.0)) * a * b

        def both(stage, a, b):
            return stage(a * b)

        assert self.count(alone, grid) == 12
        # the order of the axes does not matter
        assert self.count(alone, dict(reversed(grid.items()))) == 12
        assert self.count(neither, grid) == 1
        assert self.count(both, grid) == 240

    @pytest.mark.slow
    def test_one_set_of_amplitudes_serves_all_rates_and_widths(self):
        grid = {"rate": np.linspace(1, 9, 8), "width": np.linspace(1, 2, 8)}
        before = len(CALLS)
        data = sweep(jr.letter.model, grid, of=counted_coherence)
        assert len(CALLS) - before == 1
        at = jr.steady_state(*jr.letter.model(rate=1.0, width=2.0))
        np.testing.assert_allclose(data.value[0, -1], jr.coherence(at.rho), rtol=1e-12)
        # this is read off the function beforehand
        ready = prepare(jr.letter.model, grid, of=counted_coherence)
        first = {name: x[0] for group in ready.plan.axes for name, x in group.items()}
        groups = [tuple(group) for group in ready.plan.axes]
        parameters = {**ready.job.fixed, **first}
        cost = cost_by_axes(jax.make_jaxpr(ready.job.point)(parameters), parameters, groups)
        neither, width, both = frozenset(), frozenset({1}), frozenset({0, 1})
        assert cost.work[neither] > 0.7 * sum(cost.work.values())
        # the integral: by Δx alone; by both the solve and the error of the state
        assert cost.work[width] > 5 * cost.work[both]

    @pytest.mark.slow
    def test_one_scattering_map_serves_all_rates(self):
        grid = {"rate": np.linspace(1, 9, 20), "splitting": np.linspace(1, 2, 5)}
        before = len(CALLS)
        sweep(jr.letter.model, grid, of=counted_coherence)
        assert len(CALLS) - before == 5

    def test_blocks_grow_along_what_is_cheap(self):
        work = {frozenset({0}): 100_000, frozenset({0, 1}): 100}
        cost = Cost(work, {frozenset({0, 1}): 8})
        axes = tuple({n: np.arange(1000.0)} for n in "ab")
        plan = _plan.cut(axes, cost, chunk=None, bytes_per_point=8, memory=2**30, lanes=1,
                         platform="cpu")  # fmt: skip
        assert plan.tile[1] == 1000 and plan.tile[0] < 100
        assert plan.points == 10**6 and sum(map(plan.size, range(plan.items))) == 10**6

    def test_work_items_are_bounded_whatever_the_size(self):
        axes = tuple({n: np.arange(1000.0)} for n in "abc")
        cost = Cost({frozenset({0, 1, 2}): 1}, {frozenset({0, 1, 2}): 8})
        plan = _plan.cut(axes, cost, chunk=None, bytes_per_point=1000, memory=2**26, lanes=1,
                         platform="cpu")  # fmt: skip
        assert plan.points == 10**9
        assert max(map(plan.size, range(0, plan.items, 997))) * 1000 <= 2**26 / 8


class TestFailures:
    def test_points_that_raise_are_recorded_and_the_rest_goes_on(self, tmp_path):
        x = [-1.0, 1.0, 2.0, 3.0, 4.0, 9.0]
        for store in (None, tmp_path / "store"):
            data = sweep(fragile, {"x": x}, chunk=2, store=store)
            assert data.failed.values.tolist() == [True, False, False, True, False, False]
            np.testing.assert_allclose(data.value[[1, 2, 4, 5]], np.sqrt([1, 2, 4, 9]))
            assert "x=3: " in data.attrs["failures"]
            assert "three is too many" in data.attrs["failures"]
        summary = Store(tmp_path / "store").summary()
        assert summary["failed"] == 2 and summary["points"] == 6 and summary["items"] == 3

    def test_a_function_that_cannot_be_traced_raises_at_once(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            sweep(lambda x: 1 // 0, {"x": X}, store=tmp_path / "store")
        assert not (tmp_path / "store").exists()


class Opaque:
    """An object that resists everything."""

    def __array__(self, *arguments, **options):
        raise RuntimeError("no array")

    def __repr__(self):
        raise RuntimeError("no text")

    def __len__(self):
        return 3


#: what has no place in any argument
STRANGE = [
    None,
    "text",
    Opaque(),
    object(),
    10**400,
    -1,
    2.5,
    1j,
    np.nan,
    [],
    {},
    (None,),
    [[1.0], 2.0],
]
STRANGE += [
    b"bytes",
    [10**400],
    {"x": None},
    {1: 2},
    np.array([None]),
    lambda: 0,
    {"a"},
    True,
    range(3),
]
#: and which of it has one after all
FITS = {
    "axes": [],
    "fixed": [None, {}],
    "gradient": [[], {}, {"x": None}],
    "labels": [None, {}],
    "chunk": [None, {}, 10**400],
    "memory": [10**400],
    "progress": [None, True],
    "title": [None, "text"],
    "shard": [None],
    "store": [None, "text"],
    "executor": [None],
    "of": [None],
}


class TestArguments:
    """Where no types are checked, as in a user's own process."""

    @pytest.mark.slow
    def test_everything_strange_is_a_named_error_before_any_work(self, tmp_path):
        code = """
import os, sys, warnings; warnings.simplefilter("ignore")
import jax; jax.config.update("jax_enable_x64", True)
import jaxres as jr, numpy as np
from jaxres._sweep import drive as _drive
from test_sweep import FITS, STRANGE
from sweep_functions import wave
_drive._compute = None  # nothing gets as far as that
bad = []
def fits(name, x):
    return any(type(x) is type(y) and x == y for y in FITS[name])
def attempt(name, **changes):
    call = {"function": wave, "axes": {"x": [1.0, 2.0], "y": [3.0]}, "progress": False} | changes
    try:
        jr.sweep(**call)
    except ValueError as error:
        if not str(error).startswith(f"Argument `{name}` must "):
            bad.append((name, changes, str(error)[:200]))
    except BaseException as error:
        bad.append((name, changes.keys(), type(error).__name__, str(error)[:200]))
    else:
        bad.append((name, "accepted"))
for name in FITS:
    for x in STRANGE:
        if not fits(name, x) and not (name == "of" and callable(x)):
            attempt(name, **{name: x} | ({"store": "s"} if name == "shard" else {}))
for x in STRANGE:
    if not isinstance(x, range):
        attempt("axes", axes={"x": x, "y": [3.0]})
        attempt("axes", axes={("x", "y"): (x, [1.0, 2.0, 3.0])})
        attempt("axes", axes={("x", "y"): x})
    if not isinstance(x, (int, float, complex)) or isinstance(x, bool) or x == 10**400:
        attempt("fixed", fixed={"scale": x})
    if isinstance(x, (tuple, int, float, bytes, type(None))):
        attempt("axes", axes={x: [1.0], "y": [3.0]})
    if not callable(x):
        attempt("function", function=x)
    if type(x) is not int or x < 0:
        attempt("chunk", chunk={"x": x})
    if not isinstance(x, str):
        attempt("labels", labels={"x": {"units": x}})
attempt("labels", labels={"vector": {"dims": ("a", "a")}})
attempt("labels", labels={"vector": {"dims": ("x",)}})
attempt("labels['vector']['dims']", labels={"vector": {"dims": 3}})
attempt("shard", shard=(1.5, 2), store="s")
assert os.listdir(".") == [], os.listdir(".")
assert not bad, "\\n".join(map(str, bad))
"""
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    @pytest.mark.parametrize("n", [10**9, 10**12, 10**15])
    def test_an_axis_that_is_too_long_is_refused_by_its_length(self, n):
        class Long:
            ndim = 1

            def __len__(self):
                return n

            def __array__(self, *arguments, **options):
                raise AssertionError("it must not be made")

        for axes in ({"x": Long(), "y": Y}, {("x", "y"): (Long(), Long())}, {"x": range(n)}):
            with pytest.raises(ValueError, match=rf"`axes` must .* fit `memory`.* 'x' has {n}"):
                sweep(wave, axes)

    def test_masked_axes_are_refused(self):
        masked = np.ma.masked_array([1.0, 99.0, 3.0], [False, True, False])
        for axes in ({"x": masked, "y": Y}, {("x", "y"): (masked, [1.0, 2.0, 3.0])}):
            with pytest.raises(ValueError, match=r"`axes` must .* along 'x', .* masked array"):
                sweep(wave, axes)
        with pytest.raises(ValueError, match="`fixed` must have known values"):
            sweep(wave, {"x": X, "y": Y}, fixed={"scale": masked})
        data = sweep(wave, {"x": masked.compressed(), "y": Y})
        assert data.x.values.tolist() == [1.0, 3.0]

    @pytest.mark.slow
    def test_labelled_axes_keep_their_labels(self, tmp_path):
        about = {"units": "meV", "long_name": "a width", "symbol": "w", "note": 3}
        x = xarray.DataArray(X, dims="x", attrs=about)
        for store in (None, tmp_path / "a"):
            data = sweep(wave, {"x": x, "y": Y}, store=store, labels={"x": {"symbol": "W"}})
            assert data.x.attrs == {"units": "meV", "long_name": "a width", "symbol": "W"}
        data = sweep(
            wave, {("x", "y"): (x, xarray.DataArray(X, attrs={"units": "K"}))}, gradient=["x"]
        )
        assert data.x.units == "meV" and data.y.units == "K" and data.dheight_dx.units == "1/meV"
        data = sweep(jr.letter.model, {"rate": xarray.DataArray([1.0], attrs={"units": "GHz"})})
        assert data.rate.units == "GHz" and data.rate.symbol == "Γ"

    @pytest.mark.parametrize(
        "outputs",
        [
            {"k": 1.0, "rho": np.eye(2)},
            {"j": 1.0, "rho": np.eye(2)},
            {"a_0": 1.0, "a": np.ones(3)},
            {"x": 1.0},
            {"failed": 1.0},
            {"level": 1.0, "v": np.ones(3)},
            {"x_y": 1.0},
        ],
    )
    @pytest.mark.parametrize("kept", [False, True])
    def test_outputs_named_like_a_dimension_are_refused(self, tmp_path, monkeypatch, outputs, kept):
        monkeypatch.setattr("jaxres._sweep.drive._compute", None)
        call = {
            "function": lambda x, y=1.0: {k: v * x for k, v in outputs.items()},
            "axes": {("x", "y"): (X, X)} if "x_y" in outputs else {"x": X},
            "labels": {"v": {"dims": ["level"]}} if "v" in outputs else None,
            "store": tmp_path / "a" if kept else None,
        }
        with pytest.raises(ValueError, match="`function` must return outputs named otherwise"):
            sweep(**call)
        assert not list(tmp_path.iterdir())

    def test_outputs_named_like_a_derivative_are_refused(self):
        with pytest.raises(ValueError, match=r"named otherwise than derivatives, but .'dy_dx'"):
            sweep(lambda x: {"y": x**2, "dy_dx": 7.0}, {"x": X}, gradient=["x"])

    @pytest.mark.parametrize(
        "name", ["a/b", "a\\b", ".", "..", "zarr.json", "sweep", "a\0", "x" * 256, "é" * 128, "\ud800"]
    )  # fmt: skip
    def test_names_that_files_cannot_hold_are_refused(self, monkeypatch, name):
        monkeypatch.setattr("jaxres._sweep.drive._compute", None)
        for function, axes, labels in (
            (lambda x: {name: x}, {"x": X}, None),
            (lambda **p: p[name], {name: X}, None),
            (lambda x: {"v": x * jnp.ones(2)}, {"x": X}, {"v": {"dims": (name,)}}),
        ):
            with pytest.raises(ValueError, match=r"names that a file can hold, but .* Rename it"):
                sweep(function, axes, labels=labels)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "name", ["a b", "a#b", "a?b", "ä", "__a", ".a", "c", "value", "x" * 255, "a\nb"]
    )
    def test_all_other_names_are_kept(self, tmp_path, name):
        outputs = sweep(lambda x: {name: x}, {"x": X}, store=tmp_path / "a")
        np.testing.assert_array_equal(outputs[name], X)
        axes = sweep(lambda **p: {"v": p[name]}, {name: X}, store=tmp_path / "b")
        assert axes.v.dims == (name,)
        np.testing.assert_array_equal(axes[name], X)

    @pytest.mark.parametrize("kept", [False, True])
    def test_outputs_without_entries(self, tmp_path, kept):
        def function(x):
            return {"none": jnp.zeros((0, 2)) * x, "y": x + 1}

        store = tmp_path / "a" if kept else None
        for _ in range(2):
            data = sweep(function, {"x": X}, store=store, chunk=2)
            assert data.none.shape == (5, 0, 2) and not data.failed.any()
            np.testing.assert_array_equal(data.y, X + 1)
        if kept:
            assert Store(store).done() == {0, 1, 2}

    @pytest.mark.parametrize(
        "output", [jax.random.key(0), jnp.ones(2, jnp.bfloat16), np.array(["a"])]
    )
    def test_outputs_that_files_cannot_hold_are_refused(self, output):
        with pytest.raises(ValueError, match="`function` must return numbers or arrays of numbers"):
            sweep(lambda x: {"a": output, "b": x}, {"x": X})


class TestStore:
    def test_is_what_xarray_opens_with_one_chunk_for_each_item(self, tmp_path):
        data = sweep(wave, {"x": X, "y": Y}, store=tmp_path / "a", chunk={"x": 2, "y": 3})
        check_wave(data)
        opened = xarray.open_zarr(tmp_path / "a", consolidated=False, chunks={})
        check_wave(opened)
        assert opened.height.chunks == ((2, 2, 1), (3, 3, 1))
        assert opened.vector.chunks[2] == (3,)
        assert set(opened.coords) == {"x", "y"} and opened.attrs["title"]
        assert len(Store(tmp_path / "a").done()) == 9
        manifest = json.loads((tmp_path / "a/sweep/manifest.json").read_text())
        assert manifest["dtype"] == "float64" and manifest["versions"]["jax"] == jax.__version__

    def test_computes_only_what_is_missing_and_then_equals_the_uninterrupted(self, tmp_path):
        whole = sweep(wave, {"x": X, "y": Y}, store=tmp_path / "whole", chunk=6)
        sweep(wave, {"x": X, "y": Y}, store=tmp_path / "part", chunk=6)
        store = Store(tmp_path / "part")
        lacking = sorted(store.done())[1::2]
        for number in lacking:
            (tmp_path / f"part/sweep/items/{number}").unlink()
        done = store.done()
        stamps = {n: os.stat(tmp_path / f"part/sweep/items/{n}").st_mtime_ns for n in done}
        again = sweep(wave, {"x": X, "y": Y}, store=tmp_path / "part")
        for n, stamp in stamps.items():  # untouched
            assert os.stat(tmp_path / f"part/sweep/items/{n}").st_mtime_ns == stamp
        assert store.done() == done | set(lacking)
        xarray.testing.assert_identical(whole.load(), again.load())

    def test_zipped_axes_and_netcdf(self, tmp_path):
        from jaxres._cli.commands_sweep import to_netcdf

        axes = {("x", "y"): (X, Y[:5]), "scale": [1.0, 3.0]}
        data = sweep(wave, axes, store=tmp_path / "a", chunk=4, labels={"x": {"units": "m"}})
        to_netcdf(Store(tmp_path / "a"), tmp_path / "a.nc")
        read = xarray.load_dataset(tmp_path / "a.nc", engine="h5netcdf")
        xarray.testing.assert_identical(read, data.load())
        assert read["complex"].dtype == np.complex128 and read.x.units == "m"
        assert set(read.coords) == {"x", "y", "scale"}
        memory = sweep(wave, axes, labels={"x": {"units": "m"}})
        xarray.testing.assert_identical(memory, data)
        for each in (memory, sweep(wave, axes, store=tmp_path / "b")):
            each.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
            xarray.testing.assert_equal(
                xarray.load_dataset(tmp_path / "b.nc", engine="h5netcdf"), data
            )

    def test_shards_fill_one_store(self, tmp_path):
        axes, store = {"x": X, "y": Y}, tmp_path / "a"
        counts = []
        for shard in ("1/3", (2, 3), "3/3"):
            assert not store.exists() or len(Store(store).done()) < 12
            data = sweep(wave, axes, store=store, chunk={"x": 2, "y": 2}, shard=shard)
            counts.append(len(Store(store).done()))
        assert counts == [4, 8, 12]
        check_wave(data)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"axes": {"x": X, "y": Y + 1e-15}}, r"axes\.y is .* in the store, .* now"),
            ({"axes": {"x": X, "y": Y[:-1]}}, r"axes\.y is "),
            ({"axes": {"y": Y, "x": X}}, r"dims is \['x', 'y'\] in the store, \['y', 'x'\] now"),
            ({"fixed": {"scale": 2.0}}, r"fixed\.scale is 1\.0 in the store, 2\.0 now"),
            ({"gradient": ["x"]}, r"gradient is \[\] in the store, \['x'\] now"),
            ({"function": lambda x, y, scale=1.0: wave(x, y, scale + 1e-12)}, "function is "),
            ({"chunk": 7}, "chunk gives work items of "),
        ],
    )
    def test_of_other_parameters_is_refused_with_the_difference(self, tmp_path, change, message):
        call = {"function": wave, "axes": {"x": X, "y": Y}, "store": tmp_path / "a", "chunk": 12}
        sweep(**call)
        before = sorted(os.walk(tmp_path))
        with pytest.raises(ValueError, match=message):
            sweep(**call | change)
        assert sorted(os.walk(tmp_path)) == before

    def test_of_another_precision_is_refused(self, tmp_path):
        sweep(wave, {"x": X, "y": Y}, store=tmp_path / "a")
        with jax.enable_x64(False):
            single = sweep(wave, {"x": X, "y": Y})
            assert single.height.dtype == np.float32 and single["complex"].dtype == np.complex64
            assert single.x.dtype == np.float32
            with pytest.raises(ValueError, match="dtype is float64 in the store, float32 now"):
                sweep(wave, {"x": X, "y": Y}, store=tmp_path / "a")

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ValueError, match="is something else"):
            sweep(wave, {"x": X, "y": Y}, store=tmp_path)

    def test_an_interruption_between_items_keeps_them(self, tmp_path, monkeypatch):
        from jaxres._sweep.run import Runner

        compute, calls = Runner.__call__, []

        def interrupted(self, values):
            calls.append(values)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return compute(self, values)

        monkeypatch.setattr(Runner, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(wave, {"x": X, "y": Y}, store=tmp_path / "a", chunk=6)
        assert len(Store(tmp_path / "a").done()) == 3
        check_wave(sweep(wave, {"x": X, "y": Y}, store=tmp_path / "a"))
        assert len(calls) == 1 + Store(tmp_path / "a").summary()["items"]  # one of them twice


class Named(eqx.Module):
    a: jax.Array


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"axes": {}}, "`axes` must be a dictionary .* at least one"),
        ({"axes": {"x": X, "z": Y}}, "`axes` must name parameters .* takes no 'z'"),
        ({"axes": {"x": X}}, "`fixed` must give every parameter .* lacks 'y'"),
        ({"axes": {"x": X[None], "y": Y}}, r"`axes` must have a one-dimensional .* shape \(1, 5\)"),
        ({"axes": {"x": [], "y": Y}}, "`axes` must have a one-dimensional array of at least one"),
        ({"axes": {"x": 1.0, "y": Y}}, "`axes` must have a one-dimensional"),
        ({"axes": {"x": [1.0, np.nan], "y": Y}}, "`axes` must have no NaN, but has one along 'x'"),
        ({"axes": {"x": ["a"], "y": Y}}, "`axes` must have numbers along 'x'"),
        ({"axes": {"x": [True], "y": Y}}, "`axes` must have numbers along 'x'"),
        ({"axes": {"x": [1.0, 2.0, 1.0], "y": Y}}, "`axes` must have different values along 'x'"),
        ({"axes": {("x", "y"): (X, Y)}}, "zipped axes of one length, but they have"),
        ({"axes": {("x", "y"): (X,)}}, "one array for each of the zipped names"),
        ({"axes": {("x", "y"): (X, X), "x": X}}, "`axes` must have each name once"),
        ({"axes": {3: X}}, "names, or tuples of names"),
        ({"fixed": {"x": 1.0}}, "`fixed` must not name what is on an axis"),
        ({"fixed": {"z": 1.0}}, "`fixed` must name parameters of the function"),
        ({"fixed": {"scale": np.nan}}, "`fixed` must have no NaN"),
        ({"gradient": ["z"]}, "`gradient` must name parameters of the function"),
        ({"function": lambda **p: p["x"], "axes": {"x": X}, "gradient": ["z"]}, "lacks 'z'"),
        (
            {"function": jr.letter.model, "axes": {"rate": X}, "gradient": ["incidence"]},
            "`gradient` must name numbers, but 'incidence' is 'left'",
        ),
        ({"gradient": "x"}, "`gradient` must be a sequence of names"),
        ({"gradient": ["x", "x"]}, "`gradient` must have each name once"),
        ({"axes": {"x": X + 1j, "y": Y}, "gradient": ["x"]}, "`gradient` must name real"),
        ({"labels": {"nothing": {}}}, "`labels` must name axes or outputs"),
        ({"shard": "1/2"}, "`store` must be given with `shard`"),
        ({"shard": "0/2", "store": "a"}, "`shard` must be i/n"),
        ({"shard": "3/2", "store": "a"}, "`shard` must be i/n"),
        ({"shard": "one", "store": "a"}, "`shard` must be i/n"),
        ({"chunk": 0}, "`chunk` must be a positive number"),
        ({"chunk": {"z": 1}}, "`chunk` must name axes, but 'z' is none"),
        ({"memory": 0}, "`memory` must be a positive number"),
        ({"memory": 100}, "`store` must be given, since the results take"),
        ({"function": 3}, "`function` must be a function of keyword parameters, or a model"),
        ({"function": lambda x, y: "text"}, "`function` must return numbers or arrays"),
        ({"function": lambda x, y: None}, "`function` must return something"),
        ({"function": lambda x, y: {"x": y}}, "`function` must return outputs named otherwise"),
        ({"function": Named(jnp.ones(2)), "axes": {"a": X}}, "`axes` must name numeric fields"),
        ({"function": Named(jnp.ones(2)), "axes": {"a.2": X}}, "`axes` must name numeric fields"),
        (
            {"function": jr.letter.model, "axes": {"incidence": [0.0, 1.0]}},
            "`axes` must name numbers, but 'incidence' is 'left'",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    call = {"function": wave, "axes": {"x": X, "y": Y}} | arguments
    with pytest.raises(ValueError, match=message):
        sweep(**call)
    assert not list(tmp_path.iterdir())


def test_a_pool_of_threads_and_many_items(tmp_path):
    with ThreadPoolExecutor(3) as executor:
        data = sweep(wave, {"x": X, "y": Y}, executor=executor, chunk=2, store=tmp_path / "a")
    check_wave(data)


class Unlucky(ThreadPoolExecutor):
    """Loses every third work item with its worker."""

    def submit(self, *arguments):
        self.count = getattr(self, "count", 0) + 1
        if self.count % 3:
            return super().submit(*arguments)
        return super().submit(self.lose)

    def lose(self):
        raise OSError("the worker is gone")


def test_items_lost_with_their_worker_do_not_stop_the_rest(tmp_path):
    with (
        Unlucky(1) as executor,
        pytest.warns(UserWarning, match="1 of 5 work items came back from no worker"),
    ):
        data = sweep(wave, {"x": X, "y": Y}, executor=executor, chunk={"x": 1})
    assert int(data.failed.sum()) == 7 and "the worker is gone" in data.attrs["failures"]
    x, y = np.meshgrid(X, Y, indexing="ij")
    np.testing.assert_allclose(data.height.where(~data.failed, np.sin(x) * y**2), np.sin(x) * y**2)
    store = tmp_path / "a"
    with Unlucky(1) as executor, pytest.warns(UserWarning, match="Call again with the same store"):
        sweep(wave, {"x": X, "y": Y}, executor=executor, chunk={"x": 1}, store=store)
    assert len(Store(store).done()) == 4
    check_wave(sweep(wave, {"x": X, "y": Y}, store=store))


def test_what_cannot_be_pickled_is_told():
    import threading

    lock = threading.Lock()
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="must be picklable"):
        sweep(lambda x: x + bool(lock.locked()), {"x": X}, executor=executor)


def test_progress_knows_the_remaining_time(capsys):
    jr.sweep(wave, {"x": X, "y": Y}, chunk=5, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last and "35" in last and "<00:00" in last


def test_arguments_of_a_wrong_kind_are_told_where_no_types_are_checked():
    code = """
import jaxres as jr
for name, value in {"axes": [1.0], "of": 3, "executor": 4, "store": 7, "chunk": 2.5, "memory": 1.5,
                    "fixed": 1.0, "gradient": "x"}.items():
    try:
        jr.sweep(**{"function": lambda x: x, "axes": {"x": [1.0]}, name: value})
    except ValueError as error:
        assert str(error).startswith(f"Argument `{name}` must "), error
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


class TestWhatAFunctionComputes:
    """A sweep computes again, and refuses to go on in a store, when its function computes something else."""

    CLOSED = np.array([1.0, 2.0, 3.0])

    @pytest.mark.parametrize("kind", ["jit", "scan", "cond", "custom", "plain"])
    def test_an_array_that_an_inner_function_closes_over(self, kind, tmp_path):
        def made(array):
            def inner(y):
                return y * jnp.asarray(array)[0]

            custom = jax.custom_jvp(inner)
            custom.defjvp(lambda primals, tangents: (custom(*primals), tangents[0]))
            inside = {
                "plain": inner,
                "jit": jax.jit(inner),
                "scan": lambda x: jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=2)[0],
                "cond": lambda x: jax.lax.cond(x > 0, inner, lambda y: y, x),
                "custom": custom,
            }[kind]

            def function(x):
                return inside(x)

            return function

        grid, store = {"x": [1.0, 2.0]}, tmp_path / "store"
        first = jr.sweep(made(self.CLOSED), grid, store=store)
        changed = made(self.CLOSED + 1)
        assert np.array_equal(first.value, jnp.stack([made(self.CLOSED)(x) for x in (1.0, 2.0)]))
        assert np.array_equal(
            jr.sweep(changed, grid).value, jnp.stack([changed(x) for x in (1.0, 2.0)])
        )
        with pytest.raises(ValueError, match="function"):
            jr.sweep(changed, grid, store=store)

    def test_which_output_is_which(self, tmp_path):
        swapped = False

        def function(x):
            p, q = x + 1, x * 10
            return {"a": q, "b": p} if swapped else {"a": p, "b": q}

        grid, store = {"x": [1.0, 2.0]}, tmp_path / "store"
        assert list(jr.sweep(function, grid, store=store).a.values) == [2.0, 3.0]
        swapped = True
        assert list(jr.sweep(function, grid).a.values) == [10.0, 20.0]
        with pytest.raises(ValueError, match="function"):
            jr.sweep(function, grid, store=store)

    def test_an_output_that_is_a_constant(self):
        level = 1.0

        def function(x):
            return {"y": 2 * x, "level": jnp.asarray(level)}

        grid = {"x": [1.0, 2.0]}
        assert np.all(jr.sweep(function, grid).level == 1.0)
        level = 2.0
        assert np.all(jr.sweep(function, grid).level == 2.0)
