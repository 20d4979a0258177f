"""Inverse design: the search itself on losses with known minima, then on reservoirs."""

import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from typer.testing import CliRunner

import jaxres as jr
from jaxres import cli
from jaxres._cli import config as _config, config_design as _config_design
from jaxres._design import drive as _drive
from jaxres._design.free import Free

EXAMPLE = Path(__file__).parents[1] / "examples" / "coherence.toml"


def valley(p):
    """Rosenbrock's function: 0 at (1, 1)."""
    return (p["x"] - 1) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2


START = {"x": -1.2, "y": 0.4}
WIDE = {"x": (-5.0, 5.0), "y": (None, 10.0)}


def line(p):
    """log r with the product r w at least 3, and w at most 2: the least r is 1.5."""
    return jnp.log(p["r"]), {"product": jnp.log(p["r"] * p["w"] / 3), "room": 2 - p["w"]}


class TestCoordinates:
    @pytest.mark.slow
    def test_bounds_map_onto_the_box_and_back(self):
        model = {"a": 2.0, "b": 0.3, "c": -1.0, "d": 7.0, "e": jnp.array([0.2, -0.4])}
        bounds = {
            "a": (0.1, 100.0),
            "b": (0.0, 1.0),
            "c": (None, 2.0),
            "d": (0.0, None),
            "e": (-1.0, jnp.array([1.0, 2.0])),
        }
        free = Free(model, bounds)
        assert free.entries == ["a", "b", "c", "d", "e.0", "e.1"]
        box, x = free.box, jnp.asarray(free.x)
        s = box.scaled(x)
        np.testing.assert_allclose(box.physical(s), x, rtol=1e-14)
        np.testing.assert_allclose(box.fold(box.unfold(s))[0], s, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(s[0], np.log(2 / 0.1) / np.log(1000), rtol=1e-14)
        u = jax.random.normal(jax.random.key(0), (200, 6)) * 3
        inside = np.asarray(jax.vmap(lambda u: box.physical(box.fold(u)[0]))(u))
        low, high = np.asarray(box.low), np.asarray(box.high)
        assert np.all((inside >= low - 1e-12) & (inside <= high * (1 + 1e-12)))
        slope = jax.jacfwd(lambda u: box.physical(box.fold(u)[0]))(u[0])
        s0, ds = box.fold(u[0])
        np.testing.assert_allclose(jnp.diag(slope), box.slope(box.physical(s0)) * ds, rtol=1e-12)

    def test_starts_are_the_given_one_and_others_within_the_bounds(self):
        free = Free(START, WIDE)
        s = free.box.scaled(jnp.asarray(free.x))
        drawn = jax.vmap(free.box.physical)(free.box.draw(jax.random.key(1), s, 50))
        np.testing.assert_allclose(drawn[0], free.x, rtol=1e-12)
        assert np.all(np.abs(drawn[:, 0]) <= 5) and np.all(drawn[:, 1] <= 10)
        assert np.unique(np.asarray(drawn[:, 0]).round(9)).size == 50


@pytest.fixture(scope="module")
def found():
    return jr.design(valley, START, bounds=WIDE, starts=4, errors=0.5)


class TestSearch:
    def test_lbfgs_finds_the_minimum_from_every_start(self, found):
        assert found.converged and set(found.results) == {"converged"}
        np.testing.assert_allclose(found.ends, 1, atol=1e-6)
        assert found.gradient_norm < 1e-5 and not found.at_bound
        assert float(found.model["x"]) == found.table[0]["value"] == found.parameters["x"]
        assert "Converged" in str(found) and "4 within 1e-6 of the best loss" in str(found)

    def test_error_bars_are_those_of_the_hessian(self, found):
        H = jax.hessian(lambda x: valley({"x": x[0], "y": x[1]}))(jnp.ones(2))
        exact = np.sqrt(np.diag(np.linalg.inv(H)))
        np.testing.assert_allclose([row["error"] for row in found.table], exact, rtol=1e-4)

    def test_history_falls_and_counts_every_solve(self, found):
        losses = found.history["loss"]
        assert found.evaluations == np.sum(np.isfinite(losses))
        for each in losses:
            each = each[np.isfinite(each)]
            assert np.all(np.diff(each) <= 0) and each[-1] < 1e-9 < each[0]

    def test_an_optimum_on_a_bound_is_found_and_told(self):
        narrow = {"x": (-5.0, 5.0), "y": (None, 0.5)}
        found = jr.design(valley, START, bounds=narrow, starts=4, errors=0.5)
        # on y = 1/2 the minimum is a root of 2(x − 1) + 400 x (x² − 1/2)
        roots = np.roots([400, 0, 2 - 200, -2])
        x = max(roots.real)
        assert found.converged and found.at_bound == {"y": "high"}
        np.testing.assert_allclose(found.parameters["x"], x, rtol=1e-7)
        np.testing.assert_allclose(found.parameters["y"], 0.5, rtol=1e-10)
        slope = jax.grad(lambda y: valley({"x": x, "y": y}))(0.5)
        np.testing.assert_allclose(found.table[1]["gradient"], slope, rtol=1e-6)
        assert "on its high bound" in str(found) and np.isnan(found.table[1]["error"])
        np.testing.assert_allclose(found.table[0]["error"], (1200 * x**2 - 198) ** -0.5, rtol=1e-6)

    def test_too_few_steps_are_told(self):
        found = jr.design(valley, START, bounds=WIDE, starts=4, max_steps=5)
        assert not found.converged and found.result == "unfinished" and found.evaluations == 20
        assert "NOT CONVERGED" in str(found)

    def test_a_target_ends_the_search(self, found):
        early = jr.design(valley, START, bounds=WIDE, starts=4, target=1e-2)
        assert early.result == "reached" and early.loss <= 1e-2
        assert early.evaluations < found.evaluations

    @pytest.mark.slow
    def test_walls_are_walked_back_from_and_starts_behind_them_fail(self):
        def walled(p):
            return jnp.where(p["x"] > 0.25, (p["x"] - 0.5) ** 2, jnp.nan)

        found = jr.design(walled, {"x": 4.0}, bounds={"x": (-5.0, 5.0)}, starts=6)
        assert found.result == "converged" and abs(found.parameters["x"] - 0.5) < 1e-6
        assert "failed" in found.results and any("starts failed" in n for n in found.notes)
        behind = jr.design(walled, {"x": -4.0}, bounds={"x": (-5.0, 5.0)})
        assert behind.result == "failed" and "not finite" in behind.message

    def test_error_bars_that_cannot_be_had_are_said_so(self):
        flat = jr.design(lambda p: (p["x"] + p["y"]) ** 2, START, bounds=WIDE, errors=0.5)
        assert any("not positive definite" in note for note in flat.notes)

    @pytest.mark.parametrize(
        "optimiser",
        [
            optax.adam(0.05),
            optax.lbfgs(),
            # its functions close over names that are not set, and over one another
            optax.chain(optax.clip(1.0), optax.sgd(optax.exponential_decay(0.3, 10, 0.9))),
        ],
        ids=["adam", "lbfgs", "scheduled"],
    )
    def test_any_optimiser_of_optax(self, optimiser):
        bowl = lambda p: jnp.sum((p - jnp.array([0.3, -0.2])) ** 2)  # noqa: E731
        found = jr.design(
            lambda m: bowl(m["p"]), {"p": jnp.zeros(2)}, bounds={"p": (-1.0, 1.0)},
            optimiser=optimiser, max_steps=600, starts=2, tol=1e-6,
        )  # fmt: skip
        assert set(found.results) == {"converged"}
        np.testing.assert_allclose(found.ends, [[0.3, -0.2]] * 2, atol=1e-5)


class TestDoors:
    @pytest.mark.parametrize(
        "name, values",
        {
            "loss": [None, 3, "x"],
            "bounds": [None, [], {}, "x", 3, {"x": 1}, {"x": None}, {"x": "ab"}, {1: (0, 1)},
                       {"x": (None, 1j)}, {"x": (0, 10**400)}, {"z": (0, 1)}, {"x": (-5.0, object())}],
            "start": [None, "x", 3, object(), {"x": "1"}, {}, {"x": np.nan}],
            "max_steps": [None, 0, 2.5, True, "3", -(10**400)],
            "starts": [None, 0, 2.5, True, "3", np.float64(2)],
            "tol": [None, 0, -1.0, np.nan, "x", 1j, [1.0, 2.0], 10**400],
            "target": [np.nan, "x", 1j, object(), 10**400],
            "errors": [0, -1.0, np.nan, "x", object()],
            "key": [3, "x", object(), np.ones(2), np.ones(3, np.uint32)],
            "optimiser": [None, "LBFGS", 3, object()],
            "store": [3, object(), b"x"],
            "progress": ["yes", 3, object()],
        }.items(),
    )  # fmt: skip
    def test_every_argument_is_named_before_any_work(self, name, values):
        def loss(p):
            if not isinstance(p["x"], jax.core.Tracer):
                raise AssertionError("computed")
            return p["x"] ** 2

        good = dict(loss=loss, start={"x": 1.0}, bounds={"x": (-5.0, 5.0)}, progress=False)
        for value in values:
            with pytest.raises(ValueError, match=f"^Argument `{name}` must"):
                jr.design(**good | {name: value})

    def test_whole_numbers_of_any_library_will_do(self):
        found = jr.design(
            valley, START, bounds=WIDE, starts=np.int64(2), max_steps=jnp.asarray(150),
            tol=np.float32(1e-6), key=jax.random.PRNGKey(1), progress=np.True_,
        )  # fmt: skip
        assert found.converged and found.losses.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimiser",
    [jr.LBFGS(), optax.adam(0.05), jr.SciPy("L-BFGS-B")],
    ids=["lbfgs", "adam", "scipy"],
)
def test_a_design_needs_no_nan(optimiser):
    """Nor makes any: jax_debug_nans looks at all that a compiled function returns."""
    jax.config.update("jax_debug_nans", True)
    try:
        found = jr.design(valley, START, bounds=WIDE, optimiser=optimiser, starts=3, max_steps=12)
    finally:
        jax.config.update("jax_debug_nans", False)
    assert found.loss < valley(START)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimiser",
    [jr.LBFGS(), optax.adam(0.05), jr.SciPy("L-BFGS-B")],
    ids=["lbfgs", "adam", "scipy"],
)
def test_a_slope_that_is_no_number_ends_a_search_by_name(optimiser):
    @jax.custom_jvp
    def trap(x):
        return x**2

    trap.defjvp(lambda x, dx: (trap(*x), dx[0] * jnp.nan))
    found = jr.design(
        lambda p: trap(p["x"]),
        {"x": 0.5},
        bounds={"x": (-1.0, 1.0)},
        optimiser=optimiser,
        max_steps=20,
    )
    assert found.result == "failed" and not found.converged


class TestSciPy:
    def test_constraints(self):
        found = jr.design(
            line, {"r": 5.0, "w": 0.5}, bounds={"r": (0.1, 100.0), "w": (0.1, 10.0)},
            optimiser=jr.SciPy("SLSQP"), starts=3,
        )  # fmt: skip
        assert found.converged and found.gradient_norm < 1e-6
        np.testing.assert_allclose(found.loss, np.log(1.5), rtol=1e-5)
        assert all(abs(room) < 1e-6 for room in found.constraints.values())
        assert "constraint product: active" in str(found)

    def test_the_parameters_that_set_an_active_constraint_are_told(self):
        # the loss does not depend on w at all, but how low it can be does
        found = jr.design(
            lambda p: (p["r"], {"product": p["r"] * p["w"] - 1, "idle": p["r"] + 3}),
            {"r": 1.0, "w": 1.5}, bounds={"r": (0.1, 10.0), "w": (0.5, 2.0)},
            optimiser=jr.SciPy("SLSQP"),
        )  # fmt: skip
        r, w = found.table
        assert w["gradient"] == w["per_cent"] == 0 and w["bound"] == "high"
        np.testing.assert_allclose(
            [r["rooms"]["product"], w["rooms"]["product"]], [2, 0.5], rtol=1e-6
        )
        assert r["rooms"]["idle"] == 1 and w["rooms"]["idle"] == 0
        # ∇loss = μ ∇room
        np.testing.assert_allclose(found.prices["product"], 0.5, rtol=1e-6)
        assert found.prices["idle"] == 0
        said = str(found).partition("active constraint product: 1 more room takes 0.5 off")[2]
        assert "w " in said and "0.01" in said
        assert "active constraint idle" not in str(found)

    def test_constraints_that_cannot_be_met_are_told(self):
        found = jr.design(
            line, {"r": 0.5, "w": 0.5}, bounds={"r": (0.1, 1.0), "w": (0.1, 10.0)},
            optimiser=jr.SciPy("SLSQP"),
        )  # fmt: skip
        assert found.result == "infeasible" and "VIOLATED" in str(found)

    def test_l_bfgs_b_meets_a_bound(self):
        narrow = {"x": (-5.0, 5.0), "y": (None, 0.5)}
        found = jr.design(valley, START, bounds=narrow, optimiser=jr.SciPy("L-BFGS-B"))
        assert found.converged and found.at_bound == {"y": "high"}
        np.testing.assert_allclose(found.loss, 0.08536051, rtol=1e-6)

    def test_penalised_constraints_need_no_such_method_but_it_sees_their_parts(self):
        loss, bounds = jr.losses.Penalised(line, 1e3), {"r": (0.1, 100.0), "w": (0.1, 10.0)}
        found = jr.design(loss, {"r": 5.0, "w": 0.5}, bounds=bounds)
        assert found.converged
        np.testing.assert_allclose(found.loss, np.log(1.5), atol=1e-3)
        # the same minimum, on the smooth form of the same loss, with far fewer evaluations
        parts = jr.design(loss, {"r": 5.0, "w": 0.5}, bounds=bounds, optimiser=jr.SciPy("SLSQP"))
        assert (
            parts.converged and not parts.constraints and 2 * parts.evaluations < found.evaluations
        )
        np.testing.assert_allclose(parts.loss, found.loss, atol=1e-10)
        np.testing.assert_allclose(parts.loss, loss(parts.model), rtol=1e-12)
        # violated by μ/2w, the multiplier of the product being 1, that of the room 1/2 (of log w at w = 2)
        assert any(
            "penalised: product, room -0.0005, room, room -0.00025" in n for n in parts.notes
        )

    def test_penalties_that_cannot_vanish_are_no_failure(self):
        loss, bounds = jr.losses.Penalised(line, 10.0), {"r": (0.1, 1.0), "w": (0.1, 10.0)}
        found = jr.design(
            loss, {"r": 0.5, "w": 0.5}, bounds=bounds, optimiser=jr.SciPy("SLSQP"), starts=2
        )
        assert set(found.results) == {"converged"} and found.gradient_norm < 1e-5
        # on r = 1: 10 log²(w/3) + 10 (2 − w)² is least where log(w/3)/w = 2 − w
        w = found.parameters["w"]
        assert abs(np.log(w / 3) / w - (2 - w)) < 1e-5 and found.at_bound == {"r": "high"}

    @pytest.mark.parametrize("method", ["SLSQP", "L-BFGS-B"])
    def test_walls_are_walked_back_from(self, method):
        def walled(p):
            return jnp.where(p["x"] > 0.25, (p["x"] - 0.5) ** 2 + 0.1 * p["x"] ** 4, jnp.nan)

        # the first trial, a unit step down the slope, goes beyond the wall
        found = jr.design(walled, {"x": 4.0}, bounds={"x": (-5.0, 5.0)}, optimiser=jr.SciPy(method))
        assert found.result == "converged"
        x = max(np.roots([0.4, 0, 2, -1]).real)
        np.testing.assert_allclose(found.parameters["x"], x, rtol=1e-6)


class TestCheckpoints:
    def test_an_interrupted_search_goes_on_bit_for_bit(self, found, tmp_path, monkeypatch):
        store = tmp_path / "run"
        calls = []

        def interrupted(*arguments):
            if len(calls) == 2:
                raise KeyboardInterrupt
            calls.append(1)
            return advance(*arguments)

        advance = _drive.advance
        monkeypatch.setattr(_drive, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            jr.design(valley, START, bounds=WIDE, starts=4, store=store)
        monkeypatch.undo()
        resumed = jr.design(valley, START, bounds=WIDE, starts=4, store=store)
        np.testing.assert_array_equal(resumed.history["loss"], found.history["loss"])
        np.testing.assert_array_equal(resumed.ends, found.ends)
        assert resumed.evaluations == found.evaluations
        written = json.loads((store / "design" / "result.json").read_text())
        assert written["loss"] == found.loss and written["result"] == "converged"
        with pytest.raises(ValueError, match="starts is 4 in the store, 5 now"):
            jr.design(valley, START, bounds=WIDE, starts=5, store=store)

    def test_more_steps_go_on(self, found, tmp_path):
        few = jr.design(valley, START, bounds=WIDE, starts=4, max_steps=13, store=tmp_path / "a")
        assert few.result == "unfinished"
        more = jr.design(valley, START, bounds=WIDE, starts=4, store=tmp_path / "a")
        np.testing.assert_array_equal(more.history["loss"], found.history["loss"])

    def test_finished_starts_of_scipy_are_kept(self, tmp_path):
        def run():
            return jr.design(
                valley, START, bounds=WIDE, optimiser=jr.SciPy("L-BFGS-B"), starts=2, store=tmp_path / "s"
            )  # fmt: skip

        first = run()
        evaluate, _drive._evaluate = _drive._evaluate, None  # nothing is left to be evaluated
        try:
            second = run()
        finally:
            _drive._evaluate = evaluate
        np.testing.assert_array_equal(first.ends, second.ends)
        assert first.evaluations == second.evaluations

    def test_other_folders_are_left_alone(self, tmp_path):
        (tmp_path / "mine").write_text("x")
        with pytest.raises(ValueError, match="something else"):
            jr.design(valley, START, bounds=WIDE, store=tmp_path)


class TestMistakes:
    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"bounds": {}}, "must be a mapping from the names"),
            ({"bounds": {"z": (0, 1)}}, "must name parameters of `start`, but has 'z'"),
            ({"bounds": {"x": (1, 0)}}, "lowest < highest"),
            ({"bounds": {"x": (0, 1, 2)}}, "lowest < highest"),
            ({"bounds": {"x": (0.0, 1.0)}}, "must lie within the bounds, but 'x' is -1.2"),
            ({"optimiser": "adam"}, "must be jaxres.LBFGS"),
            ({"max_steps": 0}, "`max_steps` must be a whole number of at least 1"),
            ({"tol": -1.0}, "`tol` must be positive"),
            ({"errors": 0.0}, "positive rise"),
            ({"loss": lambda p: jnp.ones(2)}, "must return one real number"),
            ({"loss": lambda p: (p["x"], {"c": p["y"]})}, "must be jaxres.SciPy"),
        ],
    )
    def test_are_told_before_any_work(self, changes, message):
        arguments = {"loss": valley, "start": START, "bounds": WIDE} | changes
        with pytest.raises(ValueError, match=message):
            jr.design(**arguments)

    def test_names_that_stand_twice_or_are_complex(self):
        _, reservoir = jr.letter.model()
        loss = lambda b: b.rate  # noqa: E731
        with pytest.raises(ValueError, match=r"'scatterer\.coupling' is complex"):
            jr.design(loss, reservoir, bounds={"scatterer.coupling": (0, 1)})
        with pytest.raises(ValueError, match=r"'e\.1' is named twice"):
            jr.design(loss, {"e": jnp.zeros(3)}, bounds={"e": (-1, 1), "e.1": (-1, 1)})
        with pytest.raises(ValueError, match="must be one of SLSQP"):
            jr.SciPy("COBYLA")


class TestReservoirs:
    @pytest.mark.slow
    def test_a_coherence_to_order_from_fields_of_a_system_and_a_reservoir(self):
        start = jr.letter.model(splitting=1.2)
        bounds = {"rate": (0.1, 50.0), "packet.width": (0.2, 3.0), "levels.1": (0.3, 1.0)}
        found = jr.design(jr.losses.CoherenceAt(0.05), start, bounds=bounds)
        assert found.converged
        system, reservoir = found.model
        rho = jr.steady_state(system, reservoir).rho
        np.testing.assert_allclose(jr.coherence(rho), 0.05, rtol=1e-6)
        assert float(reservoir.rate) == found.parameters["rate"]
        # what is not free has not moved
        frozen = eqx.tree_at(lambda m: (m[0].levels, m[1].rate, m[1].packet.width), (system, reservoir),
                             (start[0].levels, start[1].rate, start[1].packet.width))  # fmt: skip
        assert eqx.tree_equal(frozen, start)
        assert float(system.levels[0]) == -0.6

    @pytest.mark.slow
    def test_ready_losses_agree_with_what_they_are_made_of(self):
        system, reservoir = jr.letter.model(rate=5.0)
        rho, time = jr.steady_state(system, reservoir).rho, jr.relaxation_time(system, reservoir)
        gibbs = jr.gibbs_state(system, 0.1)
        distance, work = jr.trace_distance(rho, gibbs), jr.ergotropy(system, rho)
        assert work > 1e-3
        losses = jr.losses

        @eqx.filter_jit
        def every(system, reservoir):
            return {
                "thermostat": losses.Thermostat(0.1, slowest=2.0)(system, reservoir),
                "fast": losses.FastThermostat(0.1, distance=0.2)(system, reservoir),
                "least": losses.CoherenceAt(0.05, least_rate=True)(system, reservoir),
                "target": losses.TargetState(gibbs)(system, reservoir),
                "work": losses.Ergotropy()(system, reservoir),
                "power": losses.ErgotropyRate()(system, reservoir),
            }

        got = every(system, reservoir)
        gap = rho - gibbs
        for name, (value, room) in {
            "thermostat": (jnp.log(distance), jnp.log(2 / time)),
            "fast": (jnp.log(time), jnp.log(0.2 / distance)),
            "least": (jnp.log(5.0), jnp.log(jr.coherence(rho) / 0.05)),
        }.items():
            np.testing.assert_allclose(got[name][0], value, rtol=1e-10)
            np.testing.assert_allclose(list(got[name][1].values()), [room], rtol=1e-10)
        np.testing.assert_allclose(got["target"], jnp.trace(gap @ gap).real, rtol=1e-10)
        np.testing.assert_allclose(got["work"], -work, rtol=1e-10)
        np.testing.assert_allclose(got["power"], -work / time, rtol=1e-10)

    def test_a_relaxation_time_has_no_second_derivative_and_this_is_said(self):
        # the generator of a qubit: compiles in no time, and is all that matters here
        def loss(p):
            mix = jnp.einsum("ab,jk->abjk", jnp.diag(jnp.array([0.7, 0.3])), jnp.eye(2))
            rate = 1 + (p["x"] - 0.5) ** 2
            c = jr.Collisions(jr.Superoperator(mix), rate)
            return -jr.relaxation_time(jr.System([0.0, 0.0]), c)

        found = jr.design(loss, {"x": 0.0}, bounds={"x": (-2.0, 2.0)}, errors=0.5)
        assert found.converged and abs(found.parameters["x"] - 0.5) < 1e-6
        np.testing.assert_allclose(found.loss, -1, rtol=1e-12)
        assert any("no second derivative" in note for note in found.notes)
        assert np.isnan(found.table[0]["error"])


def call(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


class TestCommandLine:
    def test_dry_run_of_the_example(self, tmp_path):
        store = tmp_path / "s"
        said = call("design", EXAMPLE, "--dry-run", "--store", store)
        assert "rate from 5 within [0.01, 100.0]" in said and "8 starts" in said
        assert not store.exists()

    @pytest.mark.slow
    def test_the_example_runs_and_resumes(self, tmp_path):
        text = EXAMPLE.read_text().replace("starts = 8", "starts = 1")
        config = tmp_path / "c.toml"
        config.write_text(text)
        store = tmp_path / "s"
        said = call("design", config, "--store", store, "--max-steps", 3)
        assert "NOT CONVERGED" in said
        said = call("design", config, "--store", store)
        assert "Converged" in said and "constraint coherence: active" in said
        result = json.loads((store / "design" / "result.json").read_text())
        values = {row["name"]: row["value"] for row in result["table"]}
        rho = jr.steady_state(*jr.letter.model(beta=0.1, splitting=0.6, **values)).rho
        np.testing.assert_allclose(jr.coherence(rho), 0.05, rtol=2e-6)
        said = call("info", store)
        assert "free coupling from 1 within [0.1, 5.0]" in said
        assert "1 converged" in said and "constraint coherence: active" in said

    @pytest.mark.slow
    def test_a_model_of_ones_own_with_a_list_of_numbers_goes_on_in_another_process(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "bowl.py").write_text("""
import jax.numpy as jnp
def model(x, y=(0.5, 0.5)):
    return x, y
def loss(x, y):
    return jnp.sum((x - jnp.array([0.1, 0.2, 0.3])) ** 2) + jnp.sum((y - 0.3) ** 4)
""")
        config, store = tmp_path / "c.toml", tmp_path / "s"
        config.write_text("""
title = "A bowl"
[model]
function = "bowl:model"
[design]
max_steps = 3
[design.loss]
function = "bowl:loss"
[design.start]
x = [0.5, -0.5, 0.9]
[design.bounds]
x = [-1.0, 1.0]
y = [0.0, 1.0]
""")
        monkeypatch.chdir(tmp_path)
        said = call("design", config, "--store", store, "--dry-run")
        assert "function bowl:model, which is not loaded" in said and "bowl:loss" in said
        said = call("design", config, "--store", store, "--dry-run", "--trust")
        assert "x from 0.5 and 2 more within [-1.0, 1.0]" in said
        assert "must be trusted" in call("design", config, "--store", store, code=2)
        said = call("design", config, "--store", store, "--trust")
        assert "Unfinished: jaxres resume" not in said
        said = call("info", store)
        assert "A bowl" in said and "free x (3 numbers) from 0.5 within [-1.0, 1.0]" in said
        assert "1 unfinished, 3 steps" in said and f"Unfinished: jaxres resume {store}" in said
        line = ["jaxres", "resume", "--trust", str(store)]
        code = f"import sys; from jaxres import cli; sys.argv = {line}; cli.main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0 and "NOT CONVERGED" in done.stdout, done.stderr
        said = call("design", config, "--store", store, "--max-steps", 60, "--trust")
        assert "Converged" in said
        values = {row["name"]: row["value"] for row in json.loads(
            (store / "design" / "result.json").read_text())["table"]}  # fmt: skip
        np.testing.assert_allclose([values[f"x.{i}"] for i in range(3)], [0.1, 0.2, 0.3], atol=1e-5)
        config.write_text(config.read_text().replace("-0.5, 0.9", "-0.5, 1.9"))
        said = call("design", config, "--trust", code=2)
        assert "design.start.x: must lie within [-1.0, 1.0], but is 1.9" in said

    def test_every_mistake_is_told_at_once_with_its_path(self, tmp_path):
        config = tmp_path / "bad.toml"
        config.write_text("""
[model]
name = "letter"
parameters = { beta = 0.1, width = 1.0, spin = 2 }
[design]
optimiser = "newton"
max_steps = 0
nonsense = 1
[design.loss]
name = "coherence_at"
parameters = { value = -0.05, colour = 3 }
[design.start]
rate = 500.0
length = 1.0
[design.bounds]
rate = [0.01, 100.0]
width = [0.1, 10.0]
coupling = [5.0, 0.1]
height = [0.0, 1.0]
mass = [-1.0, 1.0]
""")
        said = call("design", config, code=2)
        for place in (
            "model.parameters.spin: the model has no parameter 'spin'",
            "design.optimiser: Input should be 'lbfgs', 'adam', 'SLSQP' or 'L-BFGS-B'",
            "design.max_steps: Input should be greater than or equal to 1",
            "design.nonsense: Extra inputs are not permitted",
            "design.loss.parameters.colour: coherence_at has no parameter 'colour'",
            "design.start.rate: must lie within [0.01, 100.0], but is 500",
            "design.start.length: has no bounds",
            "design.bounds.width: is also held fixed",
            "design.bounds.coupling: must be [lowest, highest]",
            "design.bounds.height: the model has no parameter 'height'",
            "design.bounds.mass: must be positive and finite, but is -1",
        ):
            assert place in said, place
        assert "nothing was run" in said
        assert "design: Field required" in call("design", write(tmp_path, ""), code=2)
        assert "sweep: Field required" in call("sweep", EXAMPLE, code=2)

    def test_losses_are_checked_too(self, tmp_path):
        head = (
            '[model]\nname = "letter"\n[design]\nbounds = { rate = [0.1, 10.0] }\n[design.loss]\n'
        )
        for text, message in {
            'name = "coherence_at"\nparameters = { value = -1 }': "must be positive and finite, but is -1",
            'name = "coherence_at"': "lacks 'value'",
            'name = "warmth"': "'warmth' is none of thermostat",
            'name = "fast_thermostat"\nparameters = { beta = 0.1 }': 'must be "SLSQP"',
            'function = "nowhere:loss"': "'nowhere:loss' cannot: ModuleNotFoundError",
            'name = "ergotropy"\npenalty = 3.0': "has no constraints here",
            'name = "target_state"\nparameters = { rho = [[0.5, 0.5]], colour = 1 }': "no parameter 'colour'",
            'name = "target_state"\nparameters = { rho = { real = [[1.0]] } }': "imag",
        }.items():
            assert message in call("design", write(tmp_path, head + text), "--trust", code=2)
        config = _config.parse(_config.read(EXAMPLE), "design")
        ready = _drive.prepare(**_config_design.arguments(config.design, {"beta": 0.1}, None))
        assert ready.constraints == ("coherence",) and len(ready.starts) == 8 and not ready.weight
        matrix = "{ real = [[0.6, 0.1], [0.1, 0.4]], imag = [[0.0, 0.2], [-0.2, 0.0]] }"
        text = head + f'name = "target_state"\nparameters = {{ rho = {matrix} }}'
        config = _config.parse(_config.read(write(tmp_path, text)), "design")
        loss = _config_design.arguments(config.design, {}, None)["loss"].loss
        np.testing.assert_array_equal(loss.rho, [[0.6, 0.1 + 0.2j], [0.1 - 0.2j, 0.4]])
        text = EXAMPLE.read_text().replace("[design.loss]", "[design.loss]\npenalty = 30.0")
        config = _config.parse(_config.read(write(tmp_path, text)), "design")
        ready = _drive.prepare(**_config_design.arguments(config.design, {"beta": 0.1}, None))
        assert ready.constraints == ("coherence",) and ready.weight == 30


def write(folder, text):
    path = folder / "config.toml"
    path.write_text(text)
    return path
