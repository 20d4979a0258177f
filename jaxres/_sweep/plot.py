"""A picture of a sweep: a variable along one axis, or over two."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plot import BLACK, BLUE, COLUMN, DASHES, GREEN, ORANGE, PURPLE, VERMILION, style

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

MOST = 2000  # points drawn along an axis
COLORS = (BLUE, VERMILION, BLACK, GREEN, ORANGE, PURPLE)
CURVES = 6  # drawn of an output that has axes of its own


def draw(
    data: "xarray.Dataset", dims: Sequence[str], variable: str | None, cuts: Mapping[str, float]
) -> "matplotlib.figure.Figure":
    """A variable over the last two axes of more than one point that are not cut; further ones are cut halfway.

    Complex numbers are drawn by their modulus, points that failed in grey.
    """
    from matplotlib import pyplot

    plain = [str(n) for n in data.data_vars if n != "failed" and "flag_values" not in data[n].attrs]
    numeric = [n for n in plain if not data[n].attrs.get("symbol", "").startswith("∂")] or plain
    if variable is None:
        variable = numeric[0] if numeric else "failed"
    if variable not in data.data_vars:
        raise ValueError(
            f"Argument `--variable` must be one of {', '.join(map(str, data.data_vars))}, but is {variable!r}."
        )
    chosen = data[[variable, "failed"]]
    for name, value in cuts.items():
        if name not in dims:
            raise ValueError(
                f"Argument `--at` must name one of {', '.join(dims)}, but names {name!r}."
            )
        if name not in chosen.indexes:
            raise ValueError(
                f"Argument `--at` must name an axis that is not zipped, but names {name!r}."
            )
        chosen = chosen.isel({name: int(np.argmin(abs(chosen[name].values - value)))})
    free = [d for d in dims if d in chosen.dims]
    if not free:
        raise ValueError("Argument `--at` must leave an axis to draw along, but names all of them.")
    long = [d for d in free if chosen.sizes[d] > 1] or free[-1:]
    chosen = chosen.isel({d: chosen.sizes[d] // 2 for d in free if d not in long[-2:]})
    free = long[-2:]
    chosen = chosen.isel({d: slice(None, None, -(-chosen.sizes[d] // MOST)) for d in free}).load()
    values = chosen[variable]
    if np.iscomplexobj(values):
        values = abs(values).assign_attrs(values.attrs)
    values = values.astype(float)
    if variable in plain:  # what tells of failures is not hidden by them
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


def _curves(ax, values, dim, original, variable):
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
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, SymLogNorm

    own = [d for d in values.dims if d not in free]
    index = ", ".join("0" for _ in own)
    values = values.isel(dict.fromkeys(own, 0)).transpose(*free)
    y, ylabel, ylog = _axis(values, free[0])
    x, xlabel, xlog = _axis(values, free[1])
    z = values.values
    finite = z[np.isfinite(z)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    norm: Any = None
    if low > 0 and high > 100 * low:
        norm = LogNorm(max(low, 1e-6 * high), high)
    elif low < 0 < high:
        top = max(-low, high)
        norm = SymLogNorm(10 ** np.floor(np.log10(top) - 2), vmin=-top, vmax=top)
    colors = colormaps["RdBu_r" if low < 0 < high else "viridis"].with_extremes(bad="0.8")
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


def _axis(values, dim):
    """Positions along an axis, its label, and whether they are spaced logarithmically.

    Zipped axes stand at the values of the first of them that ascends or descends, or are numbered.
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
    """The text, its dollar signs as such unless they enclose formulas that can be set."""
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text
