"""The Letter's figures, drawn from the datasets of `jaxres.letter`.

The module needs the extra `figures`. `trajectory`, `steady_states` and `coherence_map` draw into `ax`, by default into
new axes, and return it. `figure1`, `figure2` and `figure3` draw whole figures at the width of a journal's column.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import xarray

#: width of a column of Physical Review, 8.6 cm, in inches
COLUMN = 8.6 / 2.54

#: colours of Okabe and Ito, distinguishable with any colour vision
BLACK, ORANGE, BLUE, GREEN, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#0072B2",
    "#009E73",
    "#D55E00",
    "#CC79A7",
)
DASHES = [(None, None), (4, 1.5), (1.2, 1.2), (5, 1.2, 1.2, 1.2)]

_SYMBOLS = {
    "rate": r"$\Gamma\ (\lambda/\hbar)$",
    "splitting": r"$\Delta\ (\lambda)$",
    "width": r"$\Delta x\ (L)$",
}


@contextmanager
def style() -> Iterator[None]:
    """A context with 8-point type, thin lines, ticks inside the axes, and text kept as text in PDFs."""
    import matplotlib

    settings: dict[Any, Any] = {
        "font.size": 8,
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "axes.linewidth": 0.6,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "lines.linewidth": 1.1,
        "pdf.fonttype": 42,
        "savefig.dpi": 300,
        "figure.constrained_layout.use": True,
        "xtick.top": True,
        "ytick.right": True,
    }
    for axis in "xy":
        settings |= {
            f"{axis}tick.direction": "in",
            f"{axis}tick.labelsize": 8,
            f"{axis}tick.major.width": 0.6,
            f"{axis}tick.minor.width": 0.4,
            f"{axis}tick.major.size": 3,
            f"{axis}tick.minor.size": 1.5,
        }
    with matplotlib.rc_context(settings):
        yield


def trajectory(
    data: "xarray.Dataset", *, ax: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """Draws ρ_00 against Γt along one realisation (Fig. 1), with all models but the first dashed.

    **Arguments:** `data`: from `jaxres.letter.figure1`. **Returns:** the axes.
    """
    ax = _axes(ax)
    ax.axhline(float(data.gibbs[0]), color="0.5", lw=0.7, label="Gibbs")
    for m in range(data.sizes["model"]):
        colors = cycle([BLUE, VERMILION, GREEN, ORANGE, PURPLE])
        for c in range(data.sizes["curve"]):
            curve = data.isel(model=m, curve=c)
            rate, label = float(curve.rate), rf"$\Gamma={float(curve.rate):g}$"
            if curve.dephased:
                label += ", dephased"
            ax.step(
                rate * curve.time,
                curve.rho.sel(j=0, k=0).real,
                where="post",
                color=BLACK if curve.dephased else next(colors),
                dashes=DASHES[m % len(DASHES)],
                label=None if m else label,
            )
    _name_models(ax, data)
    ax.set(xlabel=r"$\Gamma t$", ylabel=r"$\rho_{00}$")
    ax.set_xlim(0, float((data.rate * data.time).max()))
    return ax


def steady_states(
    data: "xarray.Dataset", *, ax: "matplotlib.axes.Axes | None" = None
) -> "matplotlib.axes.Axes":
    """Draws ρ_00, ρ_11, |ρ_10| against Γ (Fig. 2), with Gibbs values as thin lines.

    All models but the first are dashed.

    **Arguments:** `data`: from `jaxres.letter.figure2`. **Returns:** the axes.
    """
    ax = _axes(ax)
    for value in (*data.gibbs.values, 0.0):
        ax.axhline(value, color="0.5", lw=0.6, label="Gibbs" if value == 0 else None)
    entries = [
        (0, 0, r"$\rho_{00}$", BLUE),
        (1, 1, r"$\rho_{11}$", VERMILION),
        (1, 0, r"$|\rho_{10}|$", BLACK),
    ]
    for m in range(data.sizes["model"]):
        for j, k, label, color in entries:
            value = abs(data.rho.isel(model=m).sel(j=j, k=k))
            ax.plot(
                data.rate,
                value,
                color=color,
                dashes=DASHES[m % len(DASHES)],
                label=None if m else label,
            )
    _name_models(ax, data)
    ax.set(xlabel=_SYMBOLS["rate"], xscale="log", ylabel="steady state")
    ax.set_xlim(float(data.rate.min()), float(data.rate.max()))
    return ax


def coherence_map(
    coherence: "xarray.DataArray",
    law: "xarray.DataArray | None" = None,
    *,
    ax: "matplotlib.axes.Axes | None" = None,
    limits: tuple[float, float] = (1e-4, 0.5),
    levels: tuple[float, ...] = (1e-3, 1e-2, 1e-1),
) -> "matplotlib.axes.Axes":
    """Draws |ρ_01| over two parameters (Fig. 3) on a logarithmic colour scale, `ax.collections[0]`.

    Contours of |ρ_01| are solid, those of the qualitative law (Eq. 24), if given, dashed.

    **Arguments:**

    - `coherence`, `law`: two-dimensional arrays of `jaxres.letter.figure3`.
    - `limits`: range of the colour scale.
    - `levels`: values of the contours.

    **Returns:** the axes.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.ticker import LogLocator

    ax = _axes(ax)
    y, x = coherence.dims
    size = np.abs(coherence.values)
    # the lower 72 % of the colour map are light enough for black lines
    pale = LinearSegmentedColormap.from_list("pale", _sequential(np.linspace(0, 0.72, 256)))
    ax.pcolormesh(
        coherence[x],
        coherence[y],
        np.clip(size, *limits),
        norm=LogNorm(*limits),
        cmap=pale,
        shading="nearest",
        rasterized=True,
    )
    contours = [(size, "solid", 0.8)] + ([] if law is None else [(law.values, (0, (4, 2)), 0.7)])
    for values, dashes, width in contours:
        ax.contour(
            coherence[x],
            coherence[y],
            values,
            levels,
            colors=BLACK,
            linewidths=width,
            linestyles=[dashes],
        )
    ax.set(xscale="log", yscale="log", xlabel=_SYMBOLS[str(x)], ylabel=_SYMBOLS[str(y)])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(numticks=20))
        axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=200))
    ax.set_xlim(float(coherence[x][0]), float(coherence[x][-1]))
    ax.set_ylim(float(coherence[y][0]), float(coherence[y][-1]))
    return ax


def figure1(data: "xarray.Dataset") -> "matplotlib.figure.Figure":
    """Returns Fig. 1, drawn from the dataset of `jaxres.letter.figure1`."""
    from matplotlib import pyplot

    with style():
        figure, ax = pyplot.subplots(figsize=(COLUMN, 0.68 * COLUMN))
        trajectory(data, ax=ax)
        ax.legend(loc="lower right", ncols=2)
    return figure


def figure2(data: "xarray.Dataset") -> "matplotlib.figure.Figure":
    """Returns Fig. 2, drawn from the dataset of `jaxres.letter.figure2`."""
    from matplotlib import pyplot

    with style():
        figure, ax = pyplot.subplots(figsize=(COLUMN, 0.68 * COLUMN))
        steady_states(data, ax=ax)
        ax.legend(loc="center left", bbox_to_anchor=(0, 0.48))
    return figure


def figure3(data: "xarray.Dataset") -> "matplotlib.figure.Figure":
    """Returns Fig. 3, drawn from the dataset of `jaxres.letter.figure3`."""
    from matplotlib import pyplot

    levels, limits, fixed = (1e-3, 1e-2, 1e-1), (1e-4, 0.5), data.attrs
    with style():
        figure, axes = pyplot.subplot_mosaic(
            [["rate_splitting", "width_splitting"], ["key", "width_rate"]],
            figsize=(COLUMN, 0.95 * COLUMN),
        )
        for letter, name, title in (
            ("a", "rate_splitting", rf"$\Delta x={fixed['fixed_width']:g}$"),
            ("b", "width_splitting", rf"$\Gamma={fixed['fixed_rate']:g}$"),
            ("c", "width_rate", rf"$\Delta={fixed['fixed_splitting']:g}$"),
        ):
            law = data.prefactor * data[f"law_{name}"]
            ax = coherence_map(
                data[f"rho01_{name}"], law, ax=axes[name], limits=limits, levels=levels
            )
            ax.set_title(f"({letter})  {title}", pad=4)
        _key(axes["key"], axes["width_rate"].collections[0], levels, float(data.prefactor))
    return figure


def _key(ax, colors, levels, prefactor):
    """Draws the colour bar and the legend of the contours."""
    ax.axis("off")
    bar = ax.figure.colorbar(
        colors, cax=ax.inset_axes((0, 0.7, 1, 0.08)), orientation="horizontal", extend="min"
    )
    bar.set_ticks([1e-4, *levels])
    bar.ax.minorticks_off()
    bar.ax.set_title(r"$|\rho_{01}|$", pad=5)
    bar.ax.vlines(levels, 0, 1, colors=BLACK, linewidths=0.8)
    ax.plot([], [], color=BLACK, lw=0.8, label="contours, exact")
    law = rf"${prefactor:.2g}\,(\Gamma/\Delta)\,e^{{-\beta m\Delta x^2\Delta^2/2}}$"
    ax.plot([], [], color=BLACK, lw=0.7, dashes=(4, 2), label=f"Eq. (24), qualitative:\n{law}")
    ax.legend(loc="upper left", bbox_to_anchor=(-0.1, 0.5), borderpad=0, handlelength=1.7)


def _sequential(x):
    from matplotlib import colormaps

    return colormaps["YlGnBu"](x)


def _name_models(ax, data):
    """Adds legend entries that distinguish the models, if there are several."""
    if data.sizes["model"] > 1:
        for name, dashes in zip(data.model.values, cycle(DASHES), strict=False):
            ax.plot([], [], color="0.5", dashes=dashes, label=str(name))


def _axes(ax: "matplotlib.axes.Axes | None") -> "matplotlib.axes.Axes":
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots()
    return ax
