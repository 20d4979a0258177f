"""Functions for the tests of sweeps that other processes can import."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np

SECONDS = 0.01


def wave(x, y, scale=1.0):
    """Cheap and smooth, of several kinds of outputs."""
    return {
        "height": scale * jnp.sin(x) * y**2,
        "complex": jnp.exp(1j * x * y),
        "vector": jnp.stack([x, y, x + y]),
        "number": jnp.asarray(jnp.floor(x), int),
    }


def slow(x, y):
    """Takes its time over each point, and writes down in the file $SWEEP_LOG that it was computed."""

    def host(x, y):
        time.sleep(SECONDS)
        log = os.environ.get("SWEEP_LOG")
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{float(x)!r} {float(y)!r} {os.getpid()}\n")
        return np.sin(x) * y

    kind = jax.ShapeDtypeStruct((), jnp.result_type(float))
    return {"value": jax.pure_callback(host, kind, x, y, vmap_method="sequential") + x * y}


def fragile(x):
    """Raises at x = 3, and is no number at x < 0."""

    def host(x):
        if x == 3:
            raise ArithmeticError("three is too many")
        return np.asarray(x)

    kind = jax.ShapeDtypeStruct((), jnp.result_type(float))
    return jnp.sqrt(jax.pure_callback(host, kind, x, vmap_method="sequential"))


def precision(x):
    """The number of bytes of what it is given."""
    return {"bytes": jnp.asarray(x.dtype.itemsize) + 0 * x}


def main(store):
    """A sweep in a process that can be killed: tests run this file."""
    # also where the tests themselves run in the background of a shell, which ignores it there
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jax.config.update("jax_enable_x64", True)
    import jaxres as jr

    jr.sweep(slow, AXES, store=store, chunk=CHUNK, progress=False)


AXES = {"x": np.linspace(0.1, 2, 6), "y": np.linspace(1, 3, 12)}
CHUNK = {"x": 2, "y": 4}

if __name__ == "__main__":
    import sys

    # as a module, so that the function has the same name wherever it is run from
    import sweep_functions

    sweep_functions.main(sys.argv[1])
