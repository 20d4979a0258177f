"""How the package runs under pytest: tests and docstring examples alike.

It stands at the root because pytest shows a fixture only to what lies below its conftest, and the
examples lie in `jaxres/`, not in `tests/`.
"""

import os

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.setdefault("MPLBACKEND", "Agg")

# From here on every shape and dtype in a signature of the package is checked at each call.
install_import_hook("jaxres", "beartype.beartype")


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    """The names that every docstring example may use without importing them."""
    import jaxres

    doctest_namespace.update(jax=jax, jnp=jnp, jr=jaxres)
