"""Sweeps: a function over a grid of its parameters, labelled, stored, resumed, on many processes."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from typing import TYPE_CHECKING, Any

from .model import model_of as model_of
from .prepare import MEMORY

if TYPE_CHECKING:
    import xarray


def sweep(
    function: Any,
    axes: Mapping[Any, Any],
    *,
    of: Callable | None = None,
    fixed: Mapping[str, Any] | None = None,
    gradient: Sequence[str] = (),
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    store: str | PathLike | None = None,
    executor: Executor | None = None,
    shard: tuple[int, int] | str | None = None,
    chunk: int | Mapping[str, int] | None = None,
    memory: int = MEMORY,
    progress: bool | None = None,
    title: str | None = None,
) -> "xarray.Dataset":
    r"""Computes a function on a grid of its parameters.

    **Arguments:**

    - `function`: a function of keyword parameters, such as `jaxres.letter.model`; or a model (a pytree such as a
      `Reservoir`, or a tuple of them), whose parameters are then its numeric fields, by dotted names: `rate`,
      `packet.width`, `levels.1`.
    - `axes`: values by name, one-dimensional. Each entry is an axis of the grid, the first one outermost; a tuple of
      names with a tuple of arrays of one length is one axis along which they vary together (zipped). The unit, symbol
      and long name of an `xarray.DataArray` are kept.
    - `of`: a function of what `function` returns (the entries of a tuple are its arguments), or of the model. By
      default the result itself is kept, and for a system with its reservoir the steady state.
    - `fixed`: values of other parameters, instead of the defaults of `function` or the model's own values.
    - `gradient`: names of parameters, swept or fixed. Every real or complex output `y` gets companions `dy_d<name>`.
    - `labels`: for the name of an axis or an output, `symbol`, `long_name`, `units`, and for an output `dims`, the
      names of its own axes. The parameters of the Letter have theirs.
    - `store`: the folder of a zarr store. Work items that it has already are not computed again, so an interrupted
      sweep goes on; the results are read from it when they are used. A warning names damaged files, which are computed
      again.
    - `executor`: any `concurrent.futures.Executor`, for example a
      `ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))` or dask's `client.get_executor()`.
    - `shard`: "i/n" (or (i, n)), i from 1 to n, computes only every n-th work item. It needs a `store`, which all
      shards share.
    - `chunk`: the largest number of points of a work item, or its extents by axis; chosen by default.
    - `memory`: the bytes that results under way may take, 1 GiB by default.
    - `progress`: whether to show a bar with the remaining time; by default on a terminal.
    - `title`: the title of the dataset.

    **Returns:** an `xarray.Dataset` of all outputs: an array alone is `value`, the entries of a dictionary or the
    fields of a module have their names, enumerations are numbers with `flag_meanings`. `failed` is true where an output
    is not finite, a result is not `successful`, or nothing was computed yet. The attribute `failures` holds the
    messages of points that raised, `unfinished` the work that other shards still have to do, and `model` the whole
    model, which `jaxres.model_of` rebuilds.

    **Cost:** an operation that does not depend on an axis is computed once for all of its values in a block (a nested
    `jax.vmap` for each axis), whatever the order of the axes. Blocks fill the cache, one after the other on each local
    device, or on each core of a CPU; work items are made of blocks, and hold a bounded number of points.

    **Raises:** `ValueError` for anything wrong with the arguments, before any work; in particular for a store that was
    made with other parameters, is damaged beyond repair, or cannot be written. `RuntimeError` if the executor breaks.

    !!! example
        >>> data = jr.sweep(lambda x, y: x * y**2, {"x": [1.0, 2.0], "y": [3.0, 4.0, 5.0]}, gradient=["y"])
        >>> print(data.value.values)
        [[ 9. 16. 25.]
         [18. 32. 50.]]
        >>> print(float(data.dvalue_dy.sel(x=2.0, y=5.0)))
        20.0

        The steady state over rates and packet widths, with one set of scattering amplitudes for all of them:

        >>> data = jr.sweep(jr.letter.model, {"rate": [1.0, 5.0], "width": [0.5, 1.0, 2.0]})
        >>> print(data.rate.symbol, abs(data.rho.sel(j=0, k=1, rate=5.0)).values.round(5))
        Γ [0.10067 0.0993  0.09399]
    """
    # At the top of this file, these functions would hide the modules of the same names.
    from .drive import drive
    from .prepare import prepare

    sweep = prepare(
        function,
        axes,
        of=of,
        fixed=fixed,
        gradient=gradient,
        labels=labels,
        chunk=chunk,
        memory=memory,
        title=title,
        elsewhere=executor is not None,
    )
    return drive(
        sweep, store=store, executor=executor, shard=shard, memory=memory, progress=progress
    )
