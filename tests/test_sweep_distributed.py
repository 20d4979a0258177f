"""Sweeps in several processes, some of which are killed: nothing is lost, and nothing computed twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray
from sweep_functions import AXES, CHUNK, precision, slow

import jaxres as jr
from jaxres._sweep.store import Store, is_store

HERE = Path(__file__).parent
ITEMS, EACH = 9, 8
POINTS = ITEMS * EACH

X, Y = np.meshgrid(AXES["x"], AXES["y"], indexing="ij")
EXPECTED = np.sin(X) * Y + X * Y


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where `slow` writes down what it computed, in whatever process."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    # a process that is killed while it writes to the cache of compiled programs leaves it torn, for everybody
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
    # what a worker imports, it must find
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))
    return tmp_path / "log"


def computed(log):
    """How often each point was computed."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Counter(tuple(line.split()[:2]) for line in lines)


def processes(log):
    return {int(line.split()[2]) for line in log.read_text(encoding="utf-8").splitlines()}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It did not happen in time."
        time.sleep(0.005)


def done(store):
    return len(Store(store).done()) if is_store(store) else 0


def start(store):
    return subprocess.Popen([sys.executable, str(HERE / "sweep_functions.py"), str(store)])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_goes_on_where_it_ended(tmp_path, log, sent):
    store = tmp_path / "store"
    process = start(store)
    until(lambda: done(store) >= 3 or process.poll() is not None)
    process.send_signal(sent)
    assert process.wait() != 0
    kept, before = Store(store).done(), computed(log)
    assert 3 <= len(kept) < ITEMS
    assert max(before.values()) == 1
    assert start(store).wait() == 0
    assert Store(store).done() == set(range(ITEMS))
    again = computed(log) - before
    # of what was kept nothing is computed again; what was under way is
    assert sum(again.values()) == POINTS - EACH * len(kept)
    data = Store(store).dataset().load()
    np.testing.assert_allclose(data.value, EXPECTED, rtol=0, atol=1e-13)
    whole = jr.sweep(slow, AXES, chunk=CHUNK, progress=False)
    np.testing.assert_array_equal(data.value, whole.value)  # to the last bit
    # this process sees the store of the other as one of its own parameters
    xarray.testing.assert_identical(jr.sweep(slow, AXES, store=store, progress=False), data)


@pytest.mark.slow
def test_a_pool_of_spawned_processes(tmp_path, log):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        data = jr.sweep(
            slow, AXES, store=tmp_path / "a", chunk=CHUNK, executor=pool, progress=False
        )
        np.testing.assert_allclose(data.value, EXPECTED, atol=1e-13)
        assert len(computed(log)) == POINTS and set(computed(log).values()) == {1}
        assert os.getpid() not in processes(log)
        # a worker takes over the precision of the process that sends it work, whatever its own was
        assert set(precisions(pool)) == {8}
        with jax.enable_x64(False):
            assert set(precisions(pool)) == {4}
        assert set(precisions(pool)) == {8}
        # functions that no other process can import travel by value
        local = jr.sweep(lambda x: x + 1, {"x": [1.0, 2.0]}, executor=pool, progress=False)
        assert local.value.values.tolist() == [2.0, 3.0]


def precisions(pool):
    data = jr.sweep(precision, {"x": [1.0, 2.0]}, chunk=1, executor=pool, progress=False)
    return data.bytes.values.tolist()


def test_a_pool_that_breaks_says_how_to_go_on(tmp_path, log):
    store = tmp_path / "store"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        killer = threading.Thread(
            target=lambda: (
                until(lambda: log.exists() and done(store) >= 2),
                os.kill(max(processes(log)), signal.SIGKILL),
            )
        )
        killer.start()
        with pytest.raises(RuntimeError, match="call again with the same store"):
            jr.sweep(slow, AXES, store=store, chunk=CHUNK, executor=pool, progress=False)
        killer.join()
    kept, before = Store(store).done(), computed(log)
    assert 2 <= len(kept) < ITEMS
    data = jr.sweep(slow, AXES, store=store, progress=False)
    np.testing.assert_allclose(data.value, EXPECTED, atol=1e-13)
    assert sum((computed(log) - before).values()) == POINTS - EACH * len(kept)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dask's own
def test_dask_completes_although_a_worker_is_killed(tmp_path, log):
    from distributed import Client, LocalCluster

    store = tmp_path / "store"
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = client.scheduler_info()["workers"]
        assert len(workers) == 2 and all(a.startswith("tcp://127.0.0.1") for a in workers)
        pids = set(client.run(os.getpid).values())
        killed = []

        def kill():
            until(lambda: log.exists() and pids <= processes(log) and done(store) >= 2)
            killed.append(max(pids))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        data = jr.sweep(
            slow, AXES, store=store, chunk=CHUNK, executor=client.get_executor(), progress=False
        )
        killer.join()
        assert killed and pids - set(killed) and os.getpid() not in processes(log)
    np.testing.assert_allclose(data.value, EXPECTED, rtol=0, atol=1e-13)
    assert not data.failed.any()
    assert Store(store).done() == set(range(ITEMS))  # nothing lost, nothing twice in the store
    assert Store(store).summary()["points"] == POINTS
    # only what lay with the killed worker was computed again
    assert sum(computed(log).values()) < 2 * POINTS


@pytest.mark.slow
def test_shards_of_a_queue_meet_in_one_store(tmp_path, log):
    code = """
import sys, jax; jax.config.update("jax_enable_x64", True)
import jaxres as jr, sweep_functions as f
jr.sweep(f.slow, f.AXES, store=sys.argv[1], chunk=f.CHUNK, shard=sys.argv[2], progress=False)
"""
    store = tmp_path / "store"
    shards = [subprocess.Popen([sys.executable, "-c", code, str(store), f"{i}/2"]) for i in (1, 2)]
    assert [shard.wait() for shard in shards] == [0, 0]
    assert Store(store).done() == set(range(ITEMS))
    assert set(computed(log).values()) == {1} and len(computed(log)) == POINTS
    np.testing.assert_allclose(Store(store).dataset().value, EXPECTED, atol=1e-13)
