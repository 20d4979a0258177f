"""Elementwise functions with several results, evaluated in one loop over the elements.

XLA's compiler for CPUs makes one loop for every array: what several of them share it computes again in each, or stores
first. Only a reduction may have several results, which then come from one loop, common parts computed once. So the
function is applied to arguments with a new axis of length 2, along which they do not vary, and of its results a
reduction takes the last entry. No trace of that axis is left in the machine code.

The derivatives of such a function are elementwise functions too, of its arguments and of tangents or cotangents. They
are evaluated in the same way, in forward and in reverse mode: nothing but the arguments is kept for them.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def one_loop(function: Callable, *arguments, value: Callable | None = None):
    """function(*arguments) for an elementwise function, by one loop over the elements on a CPU.

    Arguments and results are pytrees of arrays; arguments are broadcast against each other. `value` is another function
    with the same values that costs less, but has not the right derivatives.

    A square root, a quotient or an exponential is best given as an argument, since XLA evaluates one that it meets
    more than once in a loop of its own, together with all that leads there. So it does with numbers of two places of
    one array that is computed here: what is indexed must be stored before.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in leaves))
    leaves = [jnp.broadcast_to(x, shape) for x in leaves]
    flat = _Flat(function, value, structure)
    results = jax.eval_shape(flat.nested, *leaves)
    return jax.tree.unflatten(jax.tree.structure(results), _one_loop.bind(*leaves, function=flat))


@dataclasses.dataclass(frozen=True)
class _Flat:
    """A function of pytrees as one of a list of arrays."""

    function: Callable
    value: Callable | None
    structure: jax.tree_util.PyTreeDef
    order: ClassVar[int] = 0

    def nested(self, *leaves):
        return self.function(*jax.tree.unflatten(self.structure, leaves))

    def __call__(self, *leaves):
        return jax.tree.leaves(self.nested(*leaves))

    def shortcut(self, *leaves):
        return jax.tree.leaves(self.value(*jax.tree.unflatten(self.structure, leaves)))


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """The derivative along tangents of some of the arguments: a function of all arguments and these tangents."""

    function: Callable
    moving: tuple[bool, ...]

    @property
    def order(self):
        return self.function.order + 1

    def __call__(self, *arguments):
        arguments, tangents = arguments[: len(self.moving)], arguments[len(self.moving) :]
        moved = [x for x, moves in zip(arguments, self.moving, strict=True) if moves]

        def function(*moved):
            return self.function(*_merge(self.moving, moved, arguments))

        return jax.jvp(function, tuple(moved), tuple(tangents))[1]


@dataclasses.dataclass(frozen=True)
class _Transpose:
    """The transpose of a function in its linear arguments: a function of the others and of cotangents of results."""

    function: Callable
    linear: tuple[bool, ...]
    given: tuple[bool, ...]

    @property
    def order(self):
        return self.function.order + 1

    def __call__(self, *arguments):
        n = len(self.linear) - sum(self.linear)
        others, cotangents = arguments[:n], arguments[n:]

        def function(*linear):
            results = self.function(*_merge(self.linear, linear, None, others))
            return [x for x, given in zip(results, self.given, strict=True) if given]

        like = jax.ShapeDtypeStruct(cotangents[0].shape, cotangents[0].dtype)
        return list(jax.linear_transpose(function, *[like] * sum(self.linear))(list(cotangents)))


def _merge(mask, chosen, everything, others=None):
    """The chosen ones where the mask says so, else what stands in `everything` there, or the next of the others."""
    chosen, others = iter(chosen), iter(others or ())
    return [
        next(chosen) if here else (next(others) if everything is None else everything[i])
        for i, here in enumerate(mask)
    ]


_one_loop = Primitive("one_loop")
_one_loop.multiple_results = True


@_one_loop.def_impl
def _plain(*arguments, function):
    if isinstance(function, _Flat) and function.value is not None:
        return function.shortcut(*arguments)
    return function(*arguments)


def _by_reduction(*arguments, function):
    if isinstance(function, _Flat) and function.value is not None:
        return function.shortcut(*arguments)
    # A derivative contains parts of the function: with another length they are not mistaken for the same array, which
    # would be stored.
    length = 2 + function.order
    results = function(*(jnp.broadcast_to(x[None], (length, *x.shape)) for x in arguments))
    zeros = [jnp.zeros((), x.dtype) for x in results]
    return jax.lax.reduce(results, zeros, lambda _, last: last, (0,))


@_one_loop.def_abstract_eval
def _shapes(*arguments, function):
    return jax.make_jaxpr(function)(*arguments).out_avals


def _jvp(primals, tangents, *, function):
    moving = tuple(type(t) is not ad.Zero for t in tangents)
    tangents = [t for t, moves in zip(tangents, moving, strict=True) if moves]
    return _one_loop.bind(*primals, function=function), _one_loop.bind(
        *primals, *tangents, function=_Tangent(function, moving)
    )


def _transpose(cotangents, *arguments, function):
    linear = tuple(ad.is_undefined_primal(x) for x in arguments)
    given = tuple(type(ct) is not ad.Zero for ct in cotangents)
    if not any(given):
        return [ad.Zero(x.aval) if here else None for x, here in zip(arguments, linear, strict=True)]
    others = [x for x, here in zip(arguments, linear, strict=True) if not here]
    cotangents = [ct for ct, here in zip(cotangents, given, strict=True) if here]
    results = _one_loop.bind(
        *others, *cotangents, function=_Transpose(function, linear, given)
    )
    return _merge(linear, results, [None] * len(linear))


def _batch(arguments, axes, *, function):
    (size,) = {x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None}
    arguments = [
        jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arguments, axes, strict=True)
    ]
    results = _one_loop.bind(*arguments, function=function)
    return results, [0] * len(results)


ad.primitive_jvps[_one_loop] = _jvp
ad.primitive_transposes[_one_loop] = _transpose
batching.primitive_batchers[_one_loop] = _batch
mlir.register_lowering(_one_loop, mlir.lower_fun(_plain, multiple_results=True))
mlir.register_lowering(
    _one_loop, mlir.lower_fun(_by_reduction, multiple_results=True), platform="cpu"
)
