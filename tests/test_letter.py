"""The Letter's numbers and the data of its figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres as jr

# Γ: ρ00 and |ρ01| at the parameters of the Letter, with the exact amplitudes, computed independently
STEADY = {
    0.01: (0.515178, 1.5608e-4),
    0.6: (0.524753, 0.0113847),
    1.0: (0.529684, 0.0207493),
    5.0: (0.530480, 0.0992995),
    10.0: (0.514325, 0.1261308),
    100.0: (0.488831, 0.1363692),
}
LAST_DIGIT = {0.01: 1e-8}


@pytest.mark.parametrize("rate", STEADY)
def test_steady_states_of_the_letter(rate):
    ground, coherence = STEADY[rate]
    rho = jr.steady_state(*jr.letter.model(rate=rate)).rho
    assert abs(jr.populations(rho)[0] - ground) <= 0.51e-6
    assert abs(jr.coherence(rho) - coherence) <= 0.51 * LAST_DIGIT.get(rate, 1e-7)


@pytest.mark.slow
def test_gradients_of_the_letter():
    system, reservoir = jr.letter.model(rate=5.0)
    grad = jax.grad(lambda b: jr.coherence(jr.steady_state(system, b).rho))(reservoir)
    assert abs(grad.packet.width + 3.643315e-3) <= 0.51e-9
    assert abs(grad.rate - 1.082034e-2) <= 0.51e-8
    assert abs(grad.packet.beta - 0.648982) <= 0.51e-6


def test_gibbs_value_of_the_letter():
    system, reservoir = jr.letter.model()
    assert abs(jr.gibbs_state(system, reservoir.packet.beta)[0, 0] - 0.514996) <= 0.51e-6


@pytest.fixture(scope="module")
def figure1():
    return jr.letter.figure1(collisions=200, key=jax.random.key(3))


@pytest.fixture(scope="module")
def figure3():
    return jr.letter.figure3(points=4)


class TestFigure1:
    @pytest.mark.slow
    def test_dephased_curve_goes_to_the_gibbs_state(self, figure1):
        dephased = figure1.isel(model=0, curve=-1)
        assert dephased.dephased
        last = dephased.rho.isel(collision=-1).values
        np.testing.assert_allclose(last, np.diag(figure1.gibbs.values), atol=1e-9)

    def test_fast_collisions_stay_away_from_it(self, figure1):
        path = figure1.isel(model=0, curve=0)
        assert path.rate == 10 and not path.dephased
        coherence = abs(path.rho.sel(j=0, k=1).isel(collision=slice(100, None)))
        assert coherence.mean() > 0.1 and coherence.min() > 0.05

    def test_starts_excited_and_stays_a_state(self, figure1):
        rho = figure1.rho.values
        assert (rho[:, :, 0] == np.diag([0, 1])).all()
        assert np.linalg.eigvalsh(rho).min() > -1e-12
        np.testing.assert_allclose(np.trace(rho, axis1=-2, axis2=-1), 1, atol=1e-12)

    def test_all_curves_collide_at_the_same_scaled_times(self, figure1):
        scaled = (figure1.rate * figure1.time).values
        np.testing.assert_allclose(scaled, np.broadcast_to(scaled[0], scaled.shape), rtol=1e-12)
        assert (np.diff(scaled[0]) > 0).all()
        # the mean of 200 waiting times of mean 1, within four standard errors
        assert abs(scaled[0, -1] / 200 - 1) < 4 / np.sqrt(200)

    def test_follows_equation_5(self, figure1):
        system, reservoir = jr.letter.model(rate=5.0)
        S = jr.scattering_map(system, reservoir)
        path = figure1.isel(model=0, curve=1)
        assert path.rate == 5
        wait = np.diff(path.time.values)
        turn = np.exp(-1j * np.subtract.outer(system.levels, system.levels) * wait[:, None, None])
        after = S(jnp.asarray(turn * path.rho.values[:-1]))
        np.testing.assert_allclose(after, path.rho.values[1:], atol=1e-13)


@pytest.mark.slow
def test_figure2_is_the_steady_state_at_every_rate():
    rates = [0.3, 5.0, 30.0]
    data = jr.letter.figure2(rates=rates, amplitudes={"a": jr.Exact(), "b": jr.TransferMatrix()})
    for rate in rates:
        rho = jr.steady_state(*jr.letter.model(rate=rate)).rho
        np.testing.assert_allclose(data.rho.sel(model="a", rate=rate), rho, atol=1e-10)
        # two methods for the same amplitudes
        np.testing.assert_allclose(data.rho.sel(model="b", rate=rate), rho, atol=1e-8)
        gibbs = jr.gibbs_state(jr.letter.model()[0], 0.1)
        distance = jr.trace_distance(rho, gibbs)
        np.testing.assert_allclose(data.distance.sel(model="a", rate=rate), distance, atol=1e-10)
    assert (data.map_error < 1e-8).all()


class TestFigure3:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["rate_splitting", "width_splitting", "width_rate"])
    @pytest.mark.parametrize("corner", [(0, 0), (1, 2), (-1, -1)])
    def test_is_the_steady_state_at_every_point(self, figure3, name, corner):
        at = figure3[f"rho01_{name}"][corner]
        names = ("rate", "splitting", "width")
        parameters = {key: float(figure3.attrs[f"fixed_{key}"]) for key in names}
        parameters |= {str(key): float(value) for key, value in at.coords.items()}
        rho = jr.steady_state(*jr.letter.model(**parameters)).rho
        np.testing.assert_allclose(at, rho[0, 1], atol=1e-10, rtol=1e-7)
        law = jr.letter.coherence_law(**parameters)
        np.testing.assert_allclose(figure3[f"law_{name}"][corner], law)

    def test_coherence_is_lost_where_the_letter_says(self, figure3):
        rate_splitting = abs(figure3.rho01_rate_splitting)
        assert (rate_splitting.isel(rate=0) < 1e-3).all()  # rare collisions
        assert (rate_splitting.isel(splitting=-1) < 0.02).all()  # large splitting
        assert rate_splitting.isel(rate=-1, splitting=0) > 0.3
        assert (abs(figure3.rho01_width_rate).isel(width=-1) < 0.01).all()  # wide packets

    def test_the_law_is_linear_in_the_rate_and_gaussian_in_the_width(self, figure3):
        law = jr.letter.coherence_law
        assert np.isclose(law(2.0, 0.6, 1.0) / law(1.0, 0.6, 1.0), 2)
        widths = np.array([1.0, 2.0, 3.0])
        slopes = np.diff(np.log(law(1.0, 10.0, widths))) / np.diff(widths**2)
        np.testing.assert_allclose(slopes, -0.1 * 0.1 * 10.0**2 / 2)

    def test_too_few_points_are_refused(self):
        with pytest.raises(
            ValueError, match=r"`points` must be a whole number of at least 2, but is 1"
        ):
            jr.letter.figure3(points=1)

    def test_progress_sees_every_row(self):
        seen = []
        jr.letter.figure3(points=4, progress=lambda rows: (seen.append(row) or row for row in rows))
        np.testing.assert_allclose(seen, np.geomspace(0.1, 20, 4))


@pytest.mark.slow
def test_everything_in_the_data_has_a_name_and_a_unit():
    data = jr.letter.figure2(rates=[5.0])
    for name, variable in data.variables.items():
        assert variable.attrs["long_name"], name
        assert "units" in variable.attrs, name
    assert data.attrs["beta"] == 0.1 and data.attrs["position"] == -10.0
    assert "rate" not in data.attrs
    assert data.attrs["source"] == f"jaxres {jr.__version__}"
    assert "10.1103/PhysRevLett.130.200402" in data.attrs["references"]


@pytest.mark.slow
def test_plots_draw_into_the_axes_they_are_given():
    from matplotlib import pyplot

    from jaxres import plot

    figure, axes = pyplot.subplots(3)
    models = {"exact": jr.Exact(), "product": jr.TransferMatrix()}
    steady = jr.letter.figure2(rates=jnp.geomspace(0.1, 10, 5), amplitudes=models)
    assert plot.steady_states(steady, ax=axes[0]) is axes[0]
    # three curves for each model, the Gibbs values, and the models' names
    drawn = [line for line in axes[0].lines if len(line.get_xdata()) == 5]
    assert len(drawn) == 6
    np.testing.assert_allclose(drawn[0].get_ydata(), steady.rho.isel(model=0).values[:, 0, 0].real)
    labels = axes[0].get_legend_handles_labels()[1]
    assert {"exact", "product", "Gibbs"} <= set(labels)

    maps = jr.letter.figure3(points=4)
    assert plot.coherence_map(maps.rho01_width_rate, ax=axes[1]) is axes[1]
    colors = axes[1].collections[0].get_array()
    expected = np.clip(abs(maps.rho01_width_rate.values), 1e-4, 0.5)
    np.testing.assert_allclose(colors.reshape(expected.shape), expected)
    pyplot.close(figure)
