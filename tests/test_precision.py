"""Single precision: it works, says once what to expect, and is as accurate as it says."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres as jr

W = np.array([[0.9, 0.2, 0.1j], [0.2, 0.2, 0.5], [-0.1j, 0.5, 0.7]])


def plain(x):
    """Nested lists of real and imaginary parts, for JSON."""
    return [np.real(x).tolist(), np.imag(x).tolist()]


def coherence(changes):
    return jr.coherence(jr.steady_state(*jr.letter.model(**changes)).rho)


def numbers():
    """What is computed in both precisions, and the warnings on the way."""
    out = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        system, reservoir = jr.letter.model()
        S = jr.scattering_map(system, reservoir)
        sol = jr.steady_state(system, reservoir)
        jr.steady_state(system, reservoir)
        grad = jax.grad(coherence)(dict(width=1.0, rate=5.0, beta=0.1))
    out["warnings"] = [str(w.message) for w in caught]
    out["dtypes"] = sorted({str(x.dtype) for x in jax.tree.leaves((S, sol, grad))})
    out["map"], out["map_error"] = plain(S.tensor), float(S.error)
    out["rho"], out["successful"] = plain(sol.rho), bool(sol.result == jr.RESULTS.successful)
    out["gradient"] = [float(slope) for slope in grad.values()]

    three = jr.System(np.array([-0.5, 0.1, 0.9]))
    stack = jr.Stack([jr.Slab(W, 0.7), jr.Slab(1.5 * W.conj(), 0.5)])
    packet = jr.EffusionPacket(beta=0.8, mass=0.6, width=0.7, position=-1.5)
    out["three"] = plain(jr.steady_state(three, jr.Reservoir(packet, stack, 2.0)).rho)
    wall = jr.Slab(400.0 * np.eye(2) + np.array([[0, 1], [1, 0]]), 3.0)
    opaque = jr.amplitudes(jr.System([-0.3, 0.3]), wall, mass=1.0, energy=1.0)
    out["opaque"] = plain(opaque.reflection)
    excited = jnp.diag(jnp.array([0.0, 1.0]))
    out["evolved"] = plain(jr.evolve(system, reservoir, excited, [0.0, 1.0, 1e4]))
    return out


@pytest.mark.slow
def test_single_precision():
    assert jax.config.jax_enable_x64
    double = numbers()
    code = "import json, test_precision; print(json.dumps(test_precision.numbers()))"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    single = json.loads(done.stdout)

    assert double["warnings"] == []
    (warning,) = single["warnings"]
    for part in ("single precision", "1e-6", "1e-5", "jax_enable_x64"):
        assert part in warning
    assert "float32" in single["dtypes"]
    assert not {"float64", "complex128"} & set(single["dtypes"])
    assert single["successful"]
    assert single["map_error"] < 1e-5

    def apart(name):
        return np.max(np.abs(np.subtract(single[name], double[name])))

    # what the warning says: 1e-6 in maps, 1e-5 in states
    assert 0 < apart("map") < 1e-6
    for name in ("rho", "three", "evolved", "opaque"):
        assert 0 < apart(name) < 1e-5, name
    np.testing.assert_allclose(single["gradient"], double["gradient"], rtol=1e-5)
