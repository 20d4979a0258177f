"""How the package runs under pytest: tests and docstring examples alike.

It stands at the root because pytest shows a fixture only to what lies below its conftest, and the
examples lie in `jaxres/`, not in `tests/`.
"""

import gc
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import install_import_hook

# Nearly all of the time is XLA compiling: what one worker, a notebook's kernel or a command line has
# compiled, the others read, and so does the next run. Under a limit of size jax locks the files.
cache = {
    "jax_compilation_cache_dir": str(Path(__file__).parent / ".pytest_cache" / "jax"),
    "jax_compilation_cache_max_size": 2**31,
    "jax_persistent_cache_min_compile_time_secs": 0.2,
}
for name, value in cache.items():
    if name.upper() not in os.environ:
        os.environ[name.upper()] = str(value)  # for the processes that tests start
        jax.config.update(name, value)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ.setdefault("MPLBACKEND", "Agg")

# From here on every shape and dtype in a signature of the package is checked at each call.
install_import_hook("jaxres", "beartype.beartype")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items):
    """Every example of the documentation compiles a program of its own."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    """The names that every docstring example may use without importing them."""
    import jaxres

    doctest_namespace.update(jax=jax, jnp=jnp, jr=jaxres)


@pytest.fixture(autouse=True, scope="module")
def _programs_leave_memory_maps():
    """Every compiled program takes some memory maps, of which Linux gives a process 65 530 and no more.

    One more ends the process. What is forgotten here is read from the cache on disk where it is needed again.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()
        gc.collect()
