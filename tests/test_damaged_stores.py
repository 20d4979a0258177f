"""Stores and checkpoints whose files are damaged, missing, or cannot be written: named, and never a silent number."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import jaxres as jr
from jaxres import _files
from jaxres._design.checkpoint import Checkpoint
from jaxres._files import StoreError
from jaxres._sweep import store as _store
from jaxres._sweep.drive import drive
from jaxres._sweep.prepare import prepare
from jaxres._sweep.store import Store

AXES = {"x": np.linspace(0.1, 2, 6), "y": np.linspace(-1, 3, 8)}
CHUNK = {"x": 3, "y": 4}  # 4 work items of 12 points


def product(x, y):
    return {"height": jnp.sin(x) * y, "pair": jnp.stack([x, y]) * 1j, "count": jnp.asarray(3)}


def sweep(store, **changes):
    return jr.sweep(
        **{"function": product, "axes": AXES, "store": store, "chunk": CHUNK, "progress": False}
        | changes
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "store"
    return path, sweep(path).load()


@pytest.fixture
def store(made, tmp_path):
    """A complete store of one's own, to be damaged."""
    shutil.copytree(made[0], tmp_path / "store")
    return tmp_path / "store"


def check_recovers(path, whole, *named):
    """The damage is told with its files, and afterwards everything is as it was."""
    with pytest.warns(UserWarning, match="computed again") as told:
        again = sweep(path).load()
    for name in named:
        assert any(name in str(warning.message) for warning in told)
    xarray.testing.assert_identical(again, whole)
    assert Store(path).summary()["damaged"] == [] and Store(path).done() == {0, 1, 2, 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(path)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


class TestChunks:
    @pytest.mark.parametrize(
        "name", ["height/c/0/1", "pair/c/1/1/0", "count/c/0/0", "failed/c/1/0"]
    )
    @pytest.mark.parametrize("damage", ["deleted", "empty", "truncated", "longer", "another"])
    def test_are_missed_and_computed_again(self, made, store, name, damage):
        chunk = store / name
        if damage == "deleted":
            chunk.unlink()
        elif damage == "another":
            other = store / name.replace("c/0", "c/9").replace("c/1", "c/0").replace("c/9", "c/1")
            if other.read_bytes() == chunk.read_bytes():  # equal chunks may change places
                return
            shutil.copy(other, chunk)
        else:
            content = chunk.read_bytes()
            parts = {"empty": b"", "truncated": content[:-1], "longer": content + b"\0"}
            chunk.write_bytes(parts[damage])
        assert len(Store(store).done()) == 3
        summary = Store(store).summary()
        assert summary["items"] == 3 and summary["points"] == 36 and name in summary["damaged"][0]
        assert summary["unfinished"] == (
            "1 of 4 work items are not computed, 1 of them because their files are damaged"
        )
        with pytest.raises(StoreError, match=name):
            Store(store).dataset()
        check_recovers(store, made[1], name)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["height/c/0/1", "pair/c/1/1/0", "failed/c/1/0", "x/c/0"])
    def test_every_single_bit_counts(self, made, store, name):
        chunk = store / name
        sound, bits = chunk.read_bytes(), 8 * chunk.stat().st_size
        for bit in range(0, bits, max(bits // 150, 1)):
            flip(chunk, bit)
            summary = Store(store).summary()
            assert len(summary["damaged"]) == 1 and name in summary["damaged"][0]
            # and whoever reads the store by other means is told too
            with pytest.raises(Exception, match=r"."):
                xarray.open_zarr(store, consolidated=False)[name.split("/")[0]].load()
            chunk.write_bytes(sound)
        flip(chunk, bits // 2)
        check_recovers(store, made[1], name)

    def test_a_whole_array_and_all_coordinates(self, made, store):
        for name in ("height", "y"):
            shutil.rmtree(store / name)
        summary = Store(store).summary()
        assert summary["items"] == 0 and any("y/zarr.json" in x for x in summary["damaged"])
        check_recovers(store, made[1], "y/zarr.json")

    @pytest.mark.parametrize("name", ["zarr.json", "height/zarr.json", "x/zarr.json"])
    def test_metadata_are_written_anew(self, made, store, name):
        for content in ("", "[]", (store / name).read_text().replace("float64", "float32") + " "):
            (store / name).write_text(content)
            with pytest.raises(StoreError, match=name):
                Store(store).dataset()
            check_recovers(store, made[1], name)

    def test_all_markers(self, made, store):
        shutil.rmtree(store / "sweep/items")
        assert Store(store).done() == set()
        xarray.testing.assert_identical(sweep(store).load(), made[1])

    def test_of_another_shard_are_left_to_it(self, store):
        (store / "height/c/0/1").unlink()  # work item 1, the second shard's
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sweep(store, shard="1/2")
        assert Store(store).done() == {0, 2, 3}
        with pytest.warns(UserWarning, match="computed again"):
            sweep(store, shard="2/2")
        assert Store(store).done() == {0, 1, 2, 3}


JUNK = ["", "[]", "{}", "null", "3", "{", "\0\0\0", "[" * 100_000, '{"checksum": 0}', "é", "NaN"]


class TestMarkersAndManifests:
    @pytest.mark.parametrize("junk", JUNK)
    def test_a_damaged_marker_is_an_item_to_compute(self, made, store, junk):
        (store / "sweep/items/2").write_text(junk)
        assert Store(store).done() == {0, 1, 3}
        assert "items/2" in Store(store).summary()["damaged"][0]
        check_recovers(store, made[1], "sweep/items/2")

    def test_every_single_bit_of_a_marker_counts(self, made, store):
        marker = store / "sweep/items/2"
        sound = marker.read_bytes()
        for bit in range(0, 8 * len(sound), 7):
            flip(marker, bit)
            # a blank that becomes another one changes nothing
            if json.loads(sound) != _loaded(marker):
                assert Store(store).done() == {0, 1, 3}
            marker.write_bytes(sound)

    def test_markers_that_no_item_has(self, store):
        shutil.copy(store / "sweep/items/2", store / "sweep/items/17")
        assert Store(store).done() == {0, 1, 2, 3}
        assert "items/17 is damaged: there are 4" in Store(store).summary()["damaged"][0]

    @pytest.mark.parametrize("junk", JUNK)
    def test_a_damaged_manifest_is_one_error_with_file_and_remedy(self, store, junk):
        (store / "sweep/manifest.json").write_text(junk)
        for use in (Store, sweep):
            with pytest.raises(StoreError, match=r"manifest\.json is damaged: .*(Restore|compute)"):
                use(store)

    def test_every_single_bit_of_a_manifest_counts(self, store):
        manifest = store / "sweep/manifest.json"
        sound = manifest.read_bytes()
        for bit in range(0, 8 * len(sound), 149):
            flip(manifest, bit)
            if json.loads(sound) != _loaded(manifest):
                with pytest.raises(StoreError, match=r"manifest\.json is (damaged|in format)"):
                    Store(store)
            manifest.write_bytes(sound)

    @pytest.mark.parametrize(
        "forged",
        [
            {"tile": [3]},
            {"shape": ["6", 8]},
            {"block": [0, 1]},
            {"dims": "xy"},
            {"outputs": {"../height": "float64[]"}},
            {"outputs": {"height": "float64[__import__]"}},
            {"outputs": []},
            {"files": {"../../mine": 0}},
            {"files": {"/etc/passwd": 0}},
            {"function": {}},
            {"config": []},
            {"gradient": [1]},
            {"axes": {"a/b": 1}},
        ],
    )
    def test_a_forged_manifest_is_refused(self, store, forged):
        path = store / "sweep/manifest.json"
        content = json.loads(path.read_text()) | forged
        _files.write_json(path, {k: v for k, v in content.items() if k != "checksum"})
        with pytest.raises(StoreError, match=r"manifest\.json is damaged: "):
            Store(store)

    def test_another_format_is_told(self, store):
        path = store / "sweep/manifest.json"
        old = json.loads(path.read_text()) | {"format": 1}
        del old["checksum"]
        path.write_text(json.dumps(old))
        with pytest.raises(StoreError, match="is in format 1, and this version of jaxres reads"):
            Store(store)


def _loaded(path):
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


class TestShards:
    def test_a_missing_one_is_said(self, tmp_path):
        sweep(tmp_path / "a", shard="1/3")
        data = sweep(tmp_path / "a", shard="3/3")
        said = "1 of 4 work items are not computed: shards 2/3 are missing or unfinished"
        assert data.attrs["unfinished"] == Store(tmp_path / "a").summary()["unfinished"] == said
        # what was not computed cannot be taken for a result
        assert int(data.failed.sum()) == 12 and np.isnan(data.height.where(data.failed)).all()
        assert "unfinished" not in sweep(tmp_path / "a", shard="2/3").attrs


class TestPlaces:
    @pytest.mark.parametrize(
        "name",
        ["a#b", "a?b", "a::b", "a%20b", "a\nb", "a b", " a ", "ä✓", "s3:a", "a:b", "-a", "a*[b]", "~",
         "a\\b", "|", "zip::a", "a.zip", "'\"", "x" * 255, "memory:", "%", "a&b=c", "é\u0301"],
    )  # fmt: skip
    def test_any_name_that_a_folder_can_have(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        data = jr.sweep(
            lambda x: x + 1, {"x": [1.0, 2.0, 3.0]}, store=name, chunk=2, progress=False
        )
        assert [x.name for x in tmp_path.iterdir()] == [name]
        assert data.value.values.tolist() == [2.0, 3.0, 4.0]
        assert Store(tmp_path / name).dataset(lazy=True).value.values.tolist() == [2.0, 3.0, 4.0]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("", "is empty"),
            ("a\0b", "NUL"),
            ("x" * 256, "256 bytes"),
            ("é" * 128, "256 bytes"),
            ("\ud800", "UTF-8"),
            ("s3://bucket/a", "is a URL"),
            ("file:///a", "is a URL"),
            ("memory://a", "is a URL"),
            (b"a", "but is b'a'"),
            (3, "but is 3"),
            ("file/a", "File exists|Not a directory"),
            ("file", "something else"),
            ("/proc/nothing/a", "No such file|room"),
            ("/".join(["x" * 250] * 20), "File name too long"),
            ("/".join(["x" * 250] * 15 + ["y" * 240]), "paths of less than 4096 bytes"),
        ],
    )
    def test_any_that_it_cannot_is_refused_before_the_work(
        self, tmp_path, monkeypatch, name, message
    ):
        monkeypatch.chdir(tmp_path)
        Path("file").touch()
        monkeypatch.setattr("jaxres._sweep.drive._compute", None)
        prepared = prepare(lambda x: x, {"x": [1.0]})
        with pytest.raises(ValueError, match=f"(?s)Argument `store` must .*({message})"):
            drive(prepared, store=name, memory=2**20)
        assert [x.name for x in tmp_path.iterdir()] == ["file"]

    def test_a_disk_that_is_too_small_is_told_before_the_work(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ValueError, match="must be on a disk with room"):
            sweep(tmp_path / "a")
        assert not list(tmp_path.iterdir())

    def test_a_disk_that_gets_full_keeps_what_is_done(self, made, tmp_path, monkeypatch):
        real = os.replace
        count = [0]

        def full(a, b):
            count[0] += "items" in str(b)
            if count[0] > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(a, b)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StoreError, match=r"No space left on device.*what is done is kept"):
            sweep(tmp_path / "a")
        monkeypatch.undo()
        assert Store(tmp_path / "a").done() == {0, 1}
        assert not list((tmp_path / "a").rglob("*.partial"))
        assert not list((tmp_path / "a/sweep/items").glob(".*"))
        xarray.testing.assert_identical(sweep(tmp_path / "a").load(), made[1])

    def test_a_store_that_cannot_be_written_is_told_before_the_work(self, store, monkeypatch):
        (store / "sweep/items/3").unlink()
        (store / "sweep/lock").unlink()
        (
            store / "sweep/lock"
        ).mkdir()  # root may write to files that are read-only, but not to this
        monkeypatch.setattr("jaxres._sweep.drive._compute", None)
        with pytest.raises(
            StoreError, match=r"must be a folder that can be written to, but .*lock"
        ):
            sweep(store)


class TestLeftovers:
    def test_of_killed_processes_are_cleaned_up(self, store):
        left = [
            store / "sweep/items/.3.0123456789abcdef",
            store / "height/c/0/1.0123456789abcdef.partial",
            store.with_name(".store.a1b2c3d4") / "new/height/zarr.json",
        ]
        kept = [store.with_name(".store.a1b2c3d5") / "mine", store.with_name(".other.a1b2c3d4")]
        for file in (*left, *kept):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        with _files.writing(store / "sweep/lock", lambda: None):  # not while another process writes
            sweep(store)
            assert all(file.exists() for file in left)
        sweep(store)
        assert not any(file.exists() for file in left) and all(file.exists() for file in kept)
        assert not store.with_name(".store.a1b2c3d4").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["_fill", "write_json"])
    def test_a_process_that_is_killed_while_it_writes(self, made, tmp_path, place):
        code = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import jax; jax.config.update("jax_enable_x64", True)
import test_damaged_stores as t
from jaxres._sweep import store as _store
from jaxres import _files
if {place!r} == "_fill":
    _store.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
else:
    real = os.replace
    def replace(a, b):
        real(a, b) if "items" not in str(b) else os.kill(os.getpid(), signal.SIGKILL)
    os.replace = replace
t.sweep({str(tmp_path / "store")!r})
"""
        # a cache of compiled programs must not be torn
        environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, check=False, env=environment)
        assert done.returncode == -signal.SIGKILL
        assert any(x.name.startswith(".") for x in tmp_path.rglob("*"))
        xarray.testing.assert_identical(sweep(tmp_path / "store").load(), made[1])
        assert [x.name for x in tmp_path.iterdir()] == ["store"]
        assert not [x for x in tmp_path.rglob("*") if x.name.startswith(".") or "partial" in x.name]

    def test_of_a_store_with_a_long_name(self, tmp_path):
        path = tmp_path / ("x" * 255)
        left = tmp_path / f"{_store._prefix(path)}a1b2c3d4" / "new"
        left.mkdir(parents=True)
        sweep(path)
        assert [x.name for x in tmp_path.iterdir()] == [path.name]


def valley(p):
    return (p["x"] - 1) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2


def search(store, **changes):
    call = {"bounds": {"x": (-5.0, 5.0), "y": (None, 10.0)}, "starts": 2, "max_steps": 13}
    return jr.design(valley, {"x": -1.2, "y": 0.4}, store=store, progress=False, **call | changes)


@pytest.fixture(scope="module", params=[jr.LBFGS(), jr.SciPy("L-BFGS-B")], ids=["lbfgs", "scipy"])
def designed(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("designed") / "run"
    return path, search(path, optimiser=request.param), request.param


class TestCheckpoints:
    @pytest.fixture
    def run(self, designed, tmp_path):
        shutil.copytree(designed[0], tmp_path / "run")
        return tmp_path / "run"

    @pytest.mark.slow
    @pytest.mark.parametrize("junk", [*JUNK, "PK\3\4", "\x93NUMPY", "truncated", "nan", "shape"])
    def test_a_damaged_state_is_one_error_with_file_and_remedy(self, designed, run, junk):
        state = run / "design/state.npz"
        with np.load(state) as file:
            arrays = dict(file)
        if junk == "truncated":
            state.write_bytes(state.read_bytes()[:-100])
        elif junk == "nan":
            floats = {k: np.full_like(x, np.nan) for k, x in arrays.items() if x.dtype.kind == "f"}
            np.savez(state, **arrays | floats)
        elif junk == "shape":
            np.savez(state, **arrays | {k: x[..., None] for k, x in arrays.items()})
        else:
            state.write_bytes(junk.encode())
        before = state.read_bytes()
        with pytest.raises(StoreError, match=r"state\.npz is damaged: .*Restore the file.*another"):
            search(run, max_steps=20, optimiser=designed[2])
        assert state.read_bytes() == before

    def test_every_bit_of_a_state_counts(self, designed, run):
        state = run / "design/state.npz"
        sound = state.read_bytes()
        with np.load(state) as file:
            arrays = dict(file)
        for bit in range(0, 8 * len(sound), max(len(sound) // 25, 1)):
            flip(state, bit)
            try:
                loaded = Checkpoint(run, _manifest(run)).load()
            except StoreError:
                continue
            finally:
                state.write_bytes(sound)
            for name, x in loaded.items():  # a date in the archive, say
                np.testing.assert_array_equal(x, arrays[name])

    @pytest.mark.parametrize("name", ["manifest", "progress", "result"])
    @pytest.mark.parametrize("junk", JUNK)
    def test_so_is_every_other_file(self, run, name, junk):
        from jaxres._design.checkpoint import read_manifest, read_progress

        (run / f"design/{name}.json").write_text(junk)
        with pytest.raises(StoreError, match=rf"{name}\.json is damaged: .*(Restore|Delete)"):
            (read_manifest if name == "manifest" else read_progress)(run)

    def test_the_state_of_another_search_is_refused(self, designed, run, tmp_path):
        search(tmp_path / "other", optimiser=designed[2], tol=1e-3)
        shutil.copy(tmp_path / "other/design/state.npz", run / "design/state.npz")
        with pytest.raises(StoreError, match=r"state\.npz is damaged"):
            search(run, optimiser=designed[2])

    def test_leftovers_are_cleaned_up_and_the_result_is_the_same(self, designed, run):
        for name in (".0123.npz", ".manifest.json.0123"):
            (run / "design" / name).touch()
        again = search(run, optimiser=designed[2])
        np.testing.assert_array_equal(again.ends, designed[1].ends)
        names = {"manifest.json", "state.npz", "progress.json", "result.json", "lock"}
        assert {x.name for x in (run / "design").iterdir()} == names

    def test_a_folder_that_cannot_be_made_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(
            StoreError, match=r"must be a folder that can be written to, but .*file"
        ):
            search(tmp_path / "file" / "run")


def _manifest(run):
    return {
        k: v
        for k, v in json.loads((run / "design/manifest.json").read_text()).items()
        if k != "checksum"
    }
