"""What a steady state costs: the library beside what it is measured against, in one run.

`python -m benchmarks.run` prints, for the Letter's qubit, the time per steady state and the worst
error of |rho_01| for every method, then how the cost grows with levels, slabs and nodes, and what
the panels of the Letter's Fig. 3 take. See README.md.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxres as jr
from benchmarks import baselines

CHUNK = {"cpu": 50, "gpu": 2**15}  # points computed together: what fits a CPU core's cache
CHECKED = 64  # points of a batch that are compared with the reference
KERNELS = ("simd", "libm")
ALL = ("rate", "width", "beta", "splitting", "coupling", "length", "mass")


# --------------------------------------------------------------------------------------------------
# What is timed
# --------------------------------------------------------------------------------------------------


def coherence(parameters, quadrature):
    """|rho_01| of the Letter's qubit."""
    system, reservoir = jr.letter.model(**parameters)
    return jr.coherence(jr.steady_state(system, reservoir, quadrature=quadrature).rho)


def of(names, quadrature):
    """The coherence as a function of the named parameters, and of the others."""
    return lambda free, rest: coherence({**free, **rest}, quadrature)


def split(names, parameters):
    """The named parameters, and the others."""
    free = {name: parameters[name] for name in names}
    return free, {name: x for name, x in parameters.items() if name not in names}


def jobs(quadrature):
    """The functions of one point, by the name of their row; each gives |rho_01| first."""

    def value(parameters):
        return (coherence(parameters, quadrature),)

    def gradient(names, parameters):
        return jax.value_and_grad(of(names, quadrature))(*split(names, parameters))

    def hessian(names, parameters):
        free, rest = split(names, parameters)
        function = of(names, quadrature)
        return function(free, rest), jax.hessian(function)(free, rest)

    return {
        "value": value,
        "value, gradient of 3": partial(gradient, ALL[:3]),
        "value, gradient of 7": partial(gradient, ALL),
        "value, Hessian of 3": partial(hessian, ALL[:3]),
    }


def parameters_of(points, dtype):
    """The points of `baselines.random_points` as the Letter's parameters."""
    levels, W, length, mass, beta, width, position, rate = points
    values = {
        "splitting": levels[:, 1] - levels[:, 0],
        "coupling": W[:, 0, 1].real,
        "length": length,
        "mass": mass,
        "beta": beta,
        "width": width,
        "position": position,
        "rate": rate,
    }
    return {name: jnp.asarray(value, dtype) for name, value in values.items()}


def general(levels, slabs, rule, dtype, seed=0):
    """A function of one point: N levels behind slabs of random height and one random repulsive coupling."""
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0.5, 1.0, levels - 1)
    energies = np.concatenate([[0.0], np.cumsum(gaps) / np.sum(gaps)]) - 0.5
    A = rng.normal(size=(levels, levels)) + 1j * rng.normal(size=(levels, levels))
    V = jnp.asarray(A @ A.conj().T / (2 * levels), jnp.result_type(dtype, jnp.complex64))
    heights = jnp.asarray(rng.uniform(0.5, 1.5, slabs), dtype)
    system = jr.System(jnp.asarray(energies, dtype))

    def function(point):
        numbers = {"beta": 0.5, "mass": 0.5, "width": 1.0, "position": -3.0}
        packet = jr.EffusionPacket(**{k: jnp.asarray(x, dtype) for k, x in numbers.items()})
        scatterer = jr.Profile(
            coupling=V, heights=point["size"] * heights, length=jnp.asarray(1.0, dtype)
        )
        reservoir = jr.Reservoir(packet=packet, scatterer=scatterer, rate=point["rate"])
        solution = jr.steady_state(system, reservoir, quadrature=rule)
        return jr.coherence(solution.rho), solution.map_error

    return function


# --------------------------------------------------------------------------------------------------
# How it is timed
# --------------------------------------------------------------------------------------------------


def cores():
    """The number of processor cores that this process may use."""
    return len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))


def divisor(number, most):
    """The largest divisor that is not larger than `most`."""
    return max(size for size in range(1, most + 1) if number % size == 0)


def compiled(function, points):
    """The function over a batch, compiled, and the seconds of tracing and compiling.

    On a CPU a thread for each core computes its share, as `jaxres.sweep` does.
    """
    platform = jax.devices()[0].platform
    batch = jax.tree.leaves(points)[0].shape[0]
    threads = divisor(batch, cores()) if platform == "cpu" else 1
    shares = [{k: x[i::threads] for k, x in points.items()} for i in range(threads)]
    # a divisor of the share, lest a smaller last chunk be compiled for itself
    chunk = divisor(batch // threads, min(batch // threads, CHUNK[platform]))
    over = jax.jit(lambda P: jax.lax.map(function, P, batch_size=chunk))
    start = time.perf_counter()
    ready = over.lower(shares[0]).compile()
    taken = time.perf_counter() - start
    if threads == 1:
        return lambda: jax.block_until_ready(ready(points)), taken
    pool = ThreadPoolExecutor(threads)

    def run():
        results = pool.map(lambda share: jax.block_until_ready(ready(share)), shares)
        return jax.tree.map(lambda *x: np.stack(x, 1).reshape(batch, *x[0].shape[1:]), *results)

    return run, taken


def timed(function, least=5, budget=10.0):
    """Seconds of several calls after a warm-up; fewer where they are long, one at the least."""
    start = time.perf_counter()
    function()
    spent, times = time.perf_counter() - start, []
    while not times or (len(times) < least and spent < budget):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
        spent += times[-1]
    return times


def peak_memory():
    """The most memory this process has used so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_device_memory():
    """The most memory of the accelerator used so far, in MiB; None where it is not counted."""
    statistics_ = jax.devices()[0].memory_stats() or {}
    peak = statistics_.get("peak_bytes_in_use")
    return None if peak is None else peak / 2**20


def row(name, batch, times, *, error, compile_s=None):
    """One line of the table: times in microseconds per steady state."""
    us = [1e6 * t / batch for t in times]
    return {
        "name": name,
        "batch": batch,
        "us": statistics.median(us),
        "us_least": min(us),
        "us_most": max(us),
        "compile_s": compile_s,
        "error": float(error),
        "peak_mib": peak_memory(),
        "device_peak_mib": peak_device_memory(),
    }


def import_seconds():
    """What importing the library takes longer than importing jax."""
    code = (
        "import time, jax; t = time.perf_counter(); import jaxres; print(time.perf_counter() - t)"
    )
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    )
    return min(round(float(run.stdout), 3) for run in runs)


def machine(dtype):
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":")[1].strip() if models else cpu
    device = jax.devices()[0]
    return {
        "cpu": cpu,
        "cores": cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": device.platform if device.platform == "cpu" else device.device_kind,
        "dtype": dtype,
        "python": platform.python_version(),
        "import_s": import_seconds(),
        **{name: version(name) for name in ("jax", "jaxres", "numpy", "numba", "qutip", "scipy")},
    }


# --------------------------------------------------------------------------------------------------
# The tables
# --------------------------------------------------------------------------------------------------


def kernels(points, exact, batches):
    """The hand-fused kernel: the limit of the CPU, and the measure of everything else."""
    for build in KERNELS:
        rho = baselines.numba_kernel(*baselines.head(points, len(exact)), build=build)
        error = baselines.worst_error(rho, exact)
        for batch in batches:
            kernel = partial(baselines.numba_kernel, *baselines.head(points, batch), build=build)
            yield row(f"numba {build}, 36+28", batch, timed(kernel), error=error)


def scripts(points, exact):
    """The same steady states by the scripts that one writes without the library."""
    one = [values[0] for values in points]
    start = time.perf_counter()
    rho = baselines.scipy_quad(*one)  # seconds: needs no warm-up
    times = [time.perf_counter() - start]
    yield row("SciPy quad script", 1, times, error=baselines.worst_error(rho, exact[0]))
    some = partial(baselines.numpy_batch, *baselines.head(points, 16))
    error = baselines.worst_error(some(), exact[:16])
    yield row("NumPy vectorised over nodes", 16, timed(some), error=error)
    S = baselines.numpy_map(*one[:-1], finite_nodes=128, tail_nodes=192)
    solvers = {
        "solve": baselines.qutip_solve,
        "direct": partial(baselines.qutip_steadystate, method="direct"),
        "svd": partial(baselines.qutip_steadystate, method="svd"),
    }
    for name, solve in solvers.items():
        solve = partial(solve, S, one[0], one[-1])
        error = baselines.worst_error(solve(), exact[0])
        yield row(f"QuTiP {name}, the map given", 1, timed(solve), error=error)


def library(points, exact, batches, dtype, quick):
    """The library's value and derivatives, on the kernel's number of nodes and on the default."""
    parameters = parameters_of(points, dtype)
    rules = {"36+28": jr.DoubleExponential(36, 28), "48+32": jr.DoubleExponential()}
    for nodes, rule in list(rules.items())[: 1 if quick else 2]:
        for name, function in jobs(rule).items():
            some = batches[-1:] if quick and name != "value" else batches
            for batch in some:
                if "Hessian" in name and batch > 10_000:
                    continue
                run, compile_s = compiled(function, {k: x[:batch] for k, x in parameters.items()})
                value = np.asarray(run()[0])[: len(exact)]
                error = np.max(np.abs(value - np.abs(exact[: len(value), 0, 1])))
                yield row(
                    f"jaxres {name}, {nodes}", batch, timed(run), error=error, compile_s=compile_s
                )


def growth(quick, large):
    """What the cost is followed along: levels, slabs, and nodes between the thresholds."""
    for levels in (2, 3) if quick else (2, 3, 4, 8, 16, 32) if large else (2, 3, 4, 8):
        yield levels, 1, None
    for slabs in (8,) if quick else (8, 64, 512):
        yield 2, slabs, None
    for nodes in (96,) if quick else (24, 96, 192, 384):
        yield 2, 1, nodes


def scaling(cases, dtype):
    """The value's cost against levels, slabs and nodes. Its error is the library's own estimate."""
    for levels, slabs, nodes in cases:
        rule = jr.DoubleExponential()
        if nodes is not None:
            rule = jr.DoubleExponential(nodes_between=nodes, nodes_above=2 * nodes // 3)
        batch = max(1, min(1024, 2**14 // (levels**4 * slabs)))
        batch -= batch % 16 if batch > 16 else 0  # so that threads and chunks divide it
        points = {
            "rate": jnp.linspace(1.0, 5.0, batch, dtype=dtype),
            "size": jnp.linspace(0.8, 1.2, batch, dtype=dtype),
        }
        run, compile_s = compiled(general(levels, slabs, rule, dtype), points)
        error = np.max(run()[1])
        name = f"N = {levels}, slabs = {slabs}" + (f", nodes = {nodes}" if nodes else "")
        line = row(name, batch, timed(run, budget=5.0), error=error, compile_s=compile_s)
        yield {**line, "levels": levels, "slabs": slabs, "nodes": nodes}


def panels(size, dtype):
    """The three panels of Fig. 3 by `jaxres.sweep`: what no axis touches is computed once."""
    axes = {
        "rate": np.geomspace(0.01, 100, size),
        "splitting": np.geomspace(0.1, 20, size),
        "width": np.geomspace(0.1, 30, size),
    }
    fixed = {"rate": 5.0, "splitting": 1.2, "width": 1.0}

    def of(system, reservoir):
        solution = jr.steady_state(system, reservoir)
        return {"coherence": jr.coherence(solution.rho), "map_error": solution.map_error}

    for pair in (("rate", "splitting"), ("width", "splitting"), ("width", "rate")):
        grid = {name: axes[name].astype(dtype) for name in pair}
        rest = {name: value for name, value in fixed.items() if name not in pair}
        run = partial(jr.sweep, jr.letter.model, grid, of=of, fixed=rest, progress=False)
        start = time.perf_counter()
        data = run()
        whole = time.perf_counter() - start
        times = timed(run, least=2, budget=0.0)
        error = data.map_error.max()
        yield row(
            f"{pair[0]} x {pair[1]}", size**2, times, error=error, compile_s=whole - min(times)
        )


def show(title, rows):
    """Prints rows as they come, each beside the kernels at its batch or at their largest."""
    print(f"\n{title}\n")
    heads = ("batch", "us/state", "least", "most", *(f"/{build}" for build in KERNELS))
    print(f"{'':<34}" + "".join(f"{head:>13}" for head in (*heads, "compile", "error", "MiB")))
    done = []
    for line in rows:
        done.append(line)
        numbers = [line["us"], line["us_least"], line["us_most"]]
        for build in KERNELS:
            same = [r for r in done if r["name"].startswith(f"numba {build}")]
            same = [r for r in same if r["batch"] == line["batch"]] or same[-1:]
            line[f"over_{build}"] = line["us"] / same[0]["us"] if same else None
            numbers.append(line[f"over_{build}"])
        cells = [str(line["batch"])] + ["" if x is None else f"{x:.2f}" for x in numbers]
        cells.append("" if line["compile_s"] is None else f"{line['compile_s']:.1f} s")
        cells += [f"{line['error']:.0e}", f"{line['peak_mib']:.0f}"]
        print(f"{line['name']:<34}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
    return done


def draw(tables, path):
    """How the time per steady state grows with the batch, with levels, slabs and nodes."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
    axes[0].set_prop_cycle(color=plt.get_cmap("tab20").colors)
    by_name = {}
    for line in tables["qubit"]:
        by_name.setdefault(line["name"], []).append(line)
    for name, lines in by_name.items():
        axes[0].plot(
            [line["batch"] for line in lines],
            [line["us"] for line in lines],
            "o-" if len(lines) > 1 else "s",
            label=name,
        )
    axes[0].set(xlabel="steady states in one call", ylabel="µs per steady state")
    axes[0].legend(fontsize=5)
    follow = {"levels": "levels N", "slabs": "slabs", "nodes": "nodes between the thresholds"}
    plain = {"levels": 2, "slabs": 1, "nodes": 48}  # the default for two levels
    rows = [{**line, "nodes": line["nodes"] or plain["nodes"]} for line in tables["scaling"]]
    for ax, (name, label) in zip(axes[1:], follow.items(), strict=True):
        others = [key for key in follow if key != name]
        lines = [line for line in rows if all(line[key] == plain[key] for key in others)]
        x, y = np.array(sorted((line[name], line["us"]) for line in lines)).T
        ax.plot(x, y, "o-", label="jaxres")
        if len(x) > 1:
            power = np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2])
            ax.plot(x, y[-1] * (x / x[-1]) ** power, ":", label=f"power {power:.1f} at the end")
        ax.set(xlabel=label)
        ax.legend(fontsize=7)
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{value:g}" for value in x], minor=False)
        ax.set_xticks([], minor=True)
    axes[0].set_xscale("log")
    axes[0].set_yscale("log")
    for ax in axes:
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def arguments():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--quick", action="store_true", help="a subset, under 2 minutes")
    parser.add_argument("--million", action="store_true", help="a batch of 1 000 000 too")
    parser.add_argument("--large", action="store_true", help="N = 16 and 32 too")
    parser.add_argument("--panels", type=int, default=200, metavar="N", help="Fig. 3 at N x N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how the cost grows")
    return parser.parse_args()


def choose(device, dtype):
    """Switches to the device and the precision, or says that there is no such device."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    # the CPU stays available: small constants are made there
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else "cuda,cpu")
    try:
        found = jax.devices()[0].platform
    except RuntimeError:
        found = None
    if found != device:
        sys.exit(
            "--device gpu: JAX finds no GPU here. Install its CUDA build on a machine that has one "
            '(pip install "jaxres[gpu]"), or measure with --device cpu.'
        )


def main():
    options = arguments()
    choose(options.device, options.dtype)
    about = machine(options.dtype)
    print("\n".join(f"{name:>8}: {value}" for name, value in about.items()))
    batches = [100, 10_000] if options.quick else [1, 100, 10_000]
    batches += [1_000_000] if options.million else []
    points = baselines.random_points(batches[-1])
    exact = baselines.reference(*baselines.head(points, CHECKED))

    def qubit():
        yield from kernels(points, exact, batches)
        yield from scripts(points, exact)
        yield from library(points, exact, batches, options.dtype, options.quick)

    cases = growth(options.quick, options.large)
    tables = {
        "qubit": show("The Letter's qubit: worst error of |rho_01|", qubit()),
        "scaling": show("Levels, slabs, nodes: estimated error", scaling(cases, options.dtype)),
        "panels": show(
            "The panels of Fig. 3: largest estimated error", panels(options.panels, options.dtype)
        ),
    }
    if options.json:
        options.json.write_text(json.dumps({"machine": about, **tables}, indent=1) + "\n")
    if options.plot:
        draw(tables, options.plot)


if __name__ == "__main__":
    main()
