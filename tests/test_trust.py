"""A function that a file names is code: it is looked up only where the caller trusts its module."""

import sys

import pytest

import jaxres as jr
from jaxres._sweep.trust import is_trusted, load_function


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module in the working directory that leaves a mark when it is run."""
    (tmp_path / "payload_of_a_test.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef f(x): return x\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("payload_of_a_test", None)


NAME = "payload_of_a_test:f"


@pytest.mark.parametrize("trust", [False, (), ("payload",), ("payload_of_a_test.sub",), ("",)])
def test_a_module_that_is_not_trusted_is_not_run(payload, trust):
    assert not is_trusted(NAME, trust)
    with pytest.raises(ValueError, match=r"`model\.function` must be trusted .* names 'payload_of"):
        load_function(NAME, trust=trust, place="model.function")
    assert not (payload / "ran").exists() and "payload_of_a_test" not in sys.modules


@pytest.mark.parametrize("trust", [True, ["payload_of_a_test"], {"os", "payload_of_a_test"}])
def test_a_trusted_one_is(payload, trust):
    assert load_function(NAME, trust=trust)(4) == 4
    assert (payload / "ran").exists()


def test_nothing_inside_a_store_is_imported(payload, monkeypatch):
    for path in ([*sys.path], [str(payload), *sys.path], ["", *sys.path]):
        monkeypatch.setattr(sys, "path", path)
        with pytest.raises(ValueError, match=r"cannot: (ImportError|ModuleNotFoundError)"):
            load_function(NAME, trust=True, store=payload)
    assert not (payload / "ran").exists()
    sys.path.append(str(payload))
    assert load_function(NAME, trust=True)(4) == 4  # a module that was run before, outside of it
    with pytest.raises(ValueError, match="lies inside the store"):
        load_function(NAME, trust=True, store=payload)


def test_the_working_directory_does_not_stand_in_for_installed_modules(payload):
    (payload / "equinox.py").write_text("raise SystemExit")
    assert load_function("equinox:filter_jit", trust=["equinox"])


def test_models_of_the_package_need_no_trust():
    assert load_function("jaxres.letter:model") is jr.letter.model
    assert load_function("jaxres.systems:qubit") is jr.systems.qubit


@pytest.mark.parametrize(
    "name",
    ["jaxres.letter:inspect.os.system", "jaxres.letter:jax.numpy.save", "jaxres.letter:_parameters",
     "jaxres.letter:trajectory", "jaxres.letter:np", "jaxres.cli:app", "subprocess:run", "os:remove",
     "jaxres.losses:jax.jit", "jaxres._sweep.store:_write", "jaxres.systems:System"],
)  # fmt: skip
def test_nothing_else_comes_in_by_way_of_the_package(name):
    assert not is_trusted(name)
    with pytest.raises(ValueError, match="must be trusted"):
        load_function(name)


@pytest.mark.parametrize(
    "name", ["f", ":f", "a:", "a:b:c", "a b:c", ".a:b", "a..b:c", "a:b\n", "a\0:b", "", None, 3, "1:2"]
)  # fmt: skip
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="`function` must be the name of a function"):
        load_function(name, trust=True)


def test_what_cannot_be_loaded_is_told(payload):
    for name, said in (
        ("payload_of_a_test:g", "cannot: AttributeError"),
        ("payload_of_a_test:number", "is int"),
        ("no_such_module:f", "cannot: ModuleNotFoundError"),
    ):
        with pytest.raises(ValueError, match=said):
            load_function(name, trust=True)
