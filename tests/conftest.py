"""What the tests share. Precision and shape checks are switched on in the conftest one level up."""

import json
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The first example of a property compiles for seconds, the others run in milliseconds.
hypothesis.settings.register_profile(
    "jaxres", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("jaxres")


def _parse(value):
    """Turns {"re", "im"} into complex arrays and lists of numbers or equal arrays into arrays."""
    if isinstance(value, dict):
        if value.keys() == {"re", "im"}:
            return _frozen(np.asarray(value["re"]) + 1j * np.asarray(value["im"]))
        return {key: _parse(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_parse(item) for item in value]
        if all(isinstance(item, int | float | np.ndarray) for item in items):
            return _frozen(np.asarray(items))
        return items
    return value


def _frozen(array):
    array.flags.writeable = False
    return array


@pytest.fixture(scope="session")
def golden():
    """Independent reference numbers: `golden[case][quantity]`, complex arrays as NumPy arrays.

    The cases are paper, cold_qubit, qutrit, stack and opaque (amplitudes only). Each has `levels`,
    `mass`, `beta`, `width`, `position` and `slabs` (a list of {"W", "thickness"}, left to right);
    `energies`[e] with `transmission`[e, out, in] and `reflection`[e, out, in];
    `map`[j', k', j, k]; `rates`[r] with `steady`[r, j, k]; and `coherence_gradient`.
    """
    path = Path(__file__).with_name("golden.json")
    return _parse(json.loads(path.read_text(encoding="utf-8")))
