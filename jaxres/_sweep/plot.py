"""A figure of a sweep: a variable along one axis, or over two."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plot import BLACK, BLUE, COLUMN, DASHES, GREEN, ORANGE, PURPLE, VERMILION, style

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

#: At most so many points are drawn along an axis, more than a printed figure resolves.
MOST = 2000
COLORS = (BLUE, VERMILION, BLACK, GREEN, ORANGE, PURPLE)
#: At most so many curves are drawn for an output that has axes of its own, one for each color.
CURVES = 6


def draw(
    data: "xarray.Dataset", dims: Sequence[str], variable: str | None, cuts: Mapping[str, float]
) -> "matplotlib.figure.Figure":
    """Draws a variable over the last two axes of more than one point that are not cut.

    Further axes are cut at their middle. Complex numbers are drawn by their modulus, points that failed in grey.
    """
    from matplotlib import pyplot

    plain = [str(n) for n in data.data_vars if n != "failed" and "flag_values" not in data[n].attrs]
    if variable is None:
        outputs = [n for n in plain if not data[n].attrs.get("symbol", "").startswith("∂")]
        variable = next(iter(outputs or plain), "failed")
    if variable not in data.data_vars:
        raise ValueError(
            f"Argument `--variable` must be one of {', '.join(map(str, data.data_vars))}, but is {variable!r}."
        )
    chosen, free = _cut(data[[variable, "failed"]], dims, cuts)
    chosen = chosen.load()
    values = chosen[variable]
    if np.iscomplexobj(values):
        values = abs(values).assign_attrs(values.attrs)
    values = values.astype(float)
    if variable in plain:  # `failed` and enumerations also show the points that failed
        values = values.where(~chosen.failed)
    cut = [c for c in chosen.coords if chosen[c].ndim == 0 and np.isrealobj(chosen[c])]
    title = ", ".join(f"{chosen[c].attrs.get('symbol', c)} = {float(chosen[c]):.4g}" for c in cut)
    with style():
        figure, ax = pyplot.subplots(figsize=(COLUMN, 0.75 * COLUMN))
        if len(free) == 1:
            _curves(ax, values, free[0], data[variable], variable)
        else:
            _map(figure, ax, values, free, data[variable], variable)
        ax.set_title(_readable(title))
    return figure


def _cut(data, dims, cuts):
    """Cuts the axes at the points nearest to `cuts` until one or two are left. Returns the data and those axes."""
    for name, value in cuts.items():
        if name not in dims:
            raise ValueError(
                f"Argument `--at` must name one of {', '.join(dims)}, but names {name!r}."
            )
        if name not in data.indexes:
            raise ValueError(
                f"Argument `--at` must name an axis that is not zipped, but names {name!r}."
            )
        data = data.isel({name: int(np.argmin(abs(data[name].values - value)))})
    uncut = [d for d in dims if d in data.dims]
    if not uncut:
        raise ValueError("Argument `--at` must leave an axis to draw along, but names all of them.")
    free = ([d for d in uncut if data.sizes[d] > 1] or uncut[-1:])[-2:]
    data = data.isel({d: data.sizes[d] // 2 for d in uncut if d not in free})
    return data.isel({d: slice(None, None, -(-data.sizes[d] // MOST)) for d in free}), free


def _curves(ax, values, dim, original, variable):
    """Draws the variable along one axis, a curve for each of its first entries."""
    x, label, log = _axis(values, dim)
    own = [d for d in values.dims if d != dim]
    table = values.stack(curve=own).transpose("curve", dim) if own else values.expand_dims("curve")
    for i in range(min(table.sizes["curve"], CURVES)):
        index = np.atleast_1d(table.indexes["curve"][i]) if own else ()
        name = _readable(", ".join(f"{d} = {n}" for d, n in zip(own, index, strict=True)))
        color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
        ax.plot(x, table[i], color=color, dashes=dashes, label=name)
    if own:
        ax.legend()
    ax.set(xlabel=label, ylabel=_label(original, variable), xscale="log" if log else "linear")
    finite = values.values[np.isfinite(values.values)]
    if finite.size and finite.min() > 0 and finite.max() > 100 * finite.min():
        ax.set_yscale("log")
    bad = np.isnan(table.values).any(axis=0)
    ax.fill_between(x, 0, 1, bad, step="mid", transform=ax.get_xaxis_transform(), color="0.9")


def _map(figure, ax, values, free, original, variable):
    """Draws the first entry of the variable over two axes, with a colour bar."""
    own = [d for d in values.dims if d not in free]
    index = ", ".join("0" for _ in own)
    values = values.isel(dict.fromkeys(own, 0)).transpose(*free)
    y, ylabel, ylog = _axis(values, free[0])
    x, xlabel, xlog = _axis(values, free[1])
    z = values.values
    finite = z[np.isfinite(z)]
    norm, colors = _colors(finite)
    mesh = ax.pcolormesh(
        x, y, np.ma.masked_invalid(z), norm=norm, cmap=colors, shading="nearest", rasterized=True
    )
    name = _label(original, variable) + (f" [{index}]" if own else "")
    bar = figure.colorbar(mesh, ax=ax, label=name)
    if "flag_meanings" in original.attrs:
        codes = [int(code) for code in np.unique(finite)]
        meanings = original.attrs["flag_meanings"].split()
        bar.set_ticks(codes, labels=[meanings[c].replace("_", "\n") for c in codes])
    ax.set(
        xlabel=xlabel,
        ylabel=ylabel,
        xscale="log" if xlog else "linear",
        yscale="log" if ylog else "linear",
    )
    ax.set_facecolor("0.8")


def _colors(finite) -> tuple[Any, Any]:
    """The norm and the colour map: logarithmic for values of several decades, diverging for values of both signs."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, SymLogNorm

    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    norm = None
    if low > 0 and high > 100 * low:
        norm = LogNorm(max(low, 1e-6 * high), high)
    elif low < 0 < high:
        top = max(-low, high)
        norm = SymLogNorm(10 ** np.floor(np.log10(top) - 2), vmin=-top, vmax=top)
    return norm, colormaps["RdBu_r" if low < 0 < high else "viridis"].with_extremes(bad="0.8")


def _axis(values, dim):
    """The positions along an axis, its label, and whether they are spaced logarithmically.

    The positions of zipped axes are the values of the first of them that ascends or descends, or else numbers.
    """
    for name in values.coords:
        x = values[name].values
        if values[name].dims != (dim,) or np.iscomplexobj(x) or not np.isfinite(x).all():
            continue
        steps = np.diff(x)
        if (steps > 0).all() or (steps < 0).all():
            positive = len(x) > 2 and bool((x > 0).all()) and x.max() / x.min() > 20
            ratios = np.diff(np.log(x)) if positive else steps
            log = positive and np.ptp(ratios) < 2 * abs(ratios).min()
            return x, _label(values[name], name), log
    return np.arange(values.sizes[dim]), _readable(f"{dim} (number)"), False


def _label(array, name):
    symbol, units = array.attrs.get("symbol") or str(name), array.attrs.get("units", "")
    if np.iscomplexobj(array):
        symbol = f"|{symbol}|"
    return _readable(f"{symbol} ({units})" if units not in ("", "1") else symbol)


def _readable(text):
    """The text, with its dollar signs escaped unless matplotlib can set what they enclose."""
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text
