"""What the jaxpr of a function reveals before the function runs.

A jaxpr is JAX's record of a function: a list of equations, each of which applies a primitive to variables. The
equations of `jit`, `scan`, `cond` and their like hold inner jaxprs. Three visitors read a jaxpr, one for each question:

- `cost_by_axes`: how much of the work depends on which axes of the grid? This decides how the grid is cut.
- `digest`: does the function still compute what it computed before? This decides whether a store may be continued, and
  whether a compiled program may be used again.
- `needs_one_thread`: must the function run in one thread at a time? This decides how many threads compute blocks.

All three reach the inner jaxprs by `inner_jaxprs`.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

#: Primitives that must run in one thread at a time: calls of LAPACK, which in jaxlib 0.10 may wait for each other for
#: ever (see `_numerics/batched.py`), and calls back to Python, whose functions need not be safe in threads.
ONE_THREAD = {
    *("cholesky", "eig", "eigh", "geqrf", "hessenberg", "householder_product", "lu", "qr", "schur"),
    *("svd", "triangular_solve", "tridiagonal", "tridiagonal_solve"),
    *("debug_callback", "io_callback", "pure_callback"),
}
#: A value that is the same everywhere on the grid depends on no axes.
NO_AXES: frozenset[int] = frozenset()


def inner_jaxprs(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """The jaxprs that an equation holds, in the order of the names of its parameters."""
    return [x for name in sorted(eqn.params) for x in _jaxprs_in(eqn.params[name])]


def _jaxprs_in(value):
    values = value if isinstance(value, tuple | list) else (value,)
    kinds = core.ClosedJaxpr | core.Jaxpr
    return [getattr(x, "jaxpr", x) for x in values if isinstance(x, kinds)]


# --------------------------------------------------------------------------------------------------------------
# How much of the work depends on which axes
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """The cost of one point by the set of axes on which it depends: operations, and bytes of the largest array."""

    work: Mapping[frozenset[int], int]
    bytes: Mapping[frozenset[int], int]

    def per_point(self, block: Sequence[int]) -> float:
        """Operations for each point of a block: Σ_A w_A Π_{i∈A} b_i / Π_i b_i."""
        total = sum(w * math.prod(block[i] for i in A) for A, w in self.work.items())
        return total / math.prod(block)

    def largest_array(self, block: Sequence[int]) -> int:
        """Bytes of the largest array of a block."""
        return max((m * math.prod(block[i] for i in A) for A, m in self.bytes.items()), default=0)


def cost_by_axes(
    closed: core.ClosedJaxpr, parameters: Mapping[str, Any], groups: Sequence[Sequence[str]]
) -> Cost:
    """The cost of a function of the dictionary `parameters`, some of which lie on the axes `groups` of the grid.

    An equation counts one operation for each entry of its result, in every round of the loops around it.
    """
    axes_of = {name: frozenset({i}) for i, group in enumerate(groups) for name in group}
    leaves, _ = jax.tree_util.tree_flatten_with_path(parameters)
    work, largest = Counter(), Counter()

    def count(axes, aval, rounds):
        size = math.prod(getattr(aval, "shape", ()))
        itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 8)
        work[axes] += size * rounds
        largest[axes] = max(largest[axes], size * itemsize)

    inputs = [axes_of.get(path[0].key, NO_AXES) for path, _ in leaves]
    outputs = _follow_axes(closed.jaxpr, inputs, 1, count)
    for aval, axes in zip(closed.out_avals, outputs, strict=True):
        count(axes, aval, 1)
    return Cost(work, largest)


def _follow_axes(jaxpr, inputs, rounds, count: Callable) -> list[frozenset[int]]:
    """The axes on which each output depends, from those of the inputs.

    Calls `count` with the result of every equation that holds no inner jaxpr.
    """
    axes = dict.fromkeys(jaxpr.constvars, NO_AXES) | dict(zip(jaxpr.invars, inputs, strict=True))

    def axes_of(variable):
        return NO_AXES if isinstance(variable, core.Literal) else axes[variable]

    for eqn in jaxpr.eqns:
        given = [axes_of(v) for v in eqn.invars]
        every = NO_AXES.union(*given)
        results = [every] * len(eqn.outvars)
        inner = inner_jaxprs(eqn)
        for sub in inner:
            # A loop mixes the values that it carries, so all of its body depends on all of its inputs.
            one_to_one = len(sub.invars) == len(given) and "length" not in eqn.params
            entries = given if one_to_one else [every] * len(sub.invars)
            ends = _follow_axes(sub, entries, rounds * eqn.params.get("length", 1), count)
            if one_to_one and len(ends) == len(results) and len(inner) == 1:
                results = ends
        axes.update(zip(eqn.outvars, results, strict=True))
        if not inner:
            for v, each in zip(eqn.outvars, results, strict=True):
                count(each, v.aval, rounds)
    return [axes_of(v) for v in jaxpr.outvars]


# --------------------------------------------------------------------------------------------------------------
# Whether the function still computes the same
# --------------------------------------------------------------------------------------------------------------


def digest(closed: core.ClosedJaxpr) -> str:
    """A SHA-256 of the constants and equations, which is the same in every process."""
    state = hashlib.sha256()

    def note(text: str | bytes):
        state.update(text if isinstance(text, bytes) else text.encode())
        state.update(b"\n")

    _note_constants(closed, note)
    _note_equations(closed.jaxpr, note)
    return state.hexdigest()


def _note_constants(closed, note: Callable) -> None:
    for const in getattr(closed, "consts", ()):
        array = np.asarray(const)
        note(repr(const) if array.dtype == object else array.tobytes())


def _note_equations(jaxpr, note: Callable) -> None:
    """Notes the inputs, the primitive, its parameters and the results' types of every equation.

    Variables have no lasting names, so each is noted by its number in the order of appearance.
    """
    number = {v: i for i, v in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            literal = isinstance(v, core.Literal)
            note(np.asarray(v.val).tobytes() if literal else str(number[v]))
        types = [v.aval.str_short() for v in eqn.outvars]
        note(f"{eqn.primitive.name} {_parameters_as_text(eqn.params)} {types}")
        for value in eqn.params.values():
            for closed in value if isinstance(value, tuple | list) else (value,):
                if isinstance(closed, core.ClosedJaxpr):
                    _note_constants(closed, note)
        for sub in inner_jaxprs(eqn):
            _note_equations(sub, note)
        for v in eqn.outvars:
            number[v] = len(number)
    for v in jaxpr.outvars:
        literal = isinstance(v, core.Literal)
        note(np.asarray(v.val).tobytes() if literal else str(number[v]))


def _parameters_as_text(params):
    """The parameters that are neither jaxprs nor functions, without addresses, which differ between processes."""
    texts = [
        f"{name}={params[name]}"
        for name in sorted(params)
        if not _jaxprs_in(params[name]) and not callable(params[name])
    ]
    return re.sub(r" at 0x[0-9a-f]+|id=\d+", "", ", ".join(texts))


# --------------------------------------------------------------------------------------------------------------
# Whether the function may run in several threads
# --------------------------------------------------------------------------------------------------------------


def needs_one_thread(closed: core.ClosedJaxpr) -> bool:
    """Whether the function, or any function inside it, has a primitive of `ONE_THREAD`."""
    return any(eqn.primitive.name in ONE_THREAD for eqn in _equations(closed.jaxpr))


def _equations(jaxpr) -> Iterator[core.JaxprEqn]:
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in inner_jaxprs(eqn):
            yield from _equations(sub)
