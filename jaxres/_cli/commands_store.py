"""The commands for a store of either kind, a sweep's or a design's: `jaxres resume`, `info`."""

from .commands_design import print_info as print_info_of_design, run as run_design
from .commands_sweep import print_info as print_info_of_sweep, run as run_sweep
from .messages import without_traceback
from .options import Folder, Modules, Shard, Trusted, Workers, trusted


def resume(
    store: Folder,
    shard: Shard = None,
    workers: Workers = None,
    trust: Trusted = False,
    trust_module: Modules = None,
) -> None:
    """Computes what a store still lacks, be it of a sweep or of a design."""
    from .._design import checkpoint
    from .._sweep import manifest

    with without_traceback():
        is_design = checkpoint.is_checkpoint(store)
        read_manifest = checkpoint.read_manifest if is_design else manifest.read_manifest
        content = read_manifest(store).get("config")
        if content is None:
            made = "jaxres.design" if is_design else "jaxres.sweep"
            raise ValueError(
                f"Argument `store` must have been made from a file, but {store} was made in Python. Repeat its call "
                f"of {made} with this `store`: it goes on."
            )
    allowed = trusted(trust, trust_module)
    if is_design:
        run_design(store, content, dry_run=False, trust=allowed)
    else:
        run_sweep(store, shard, workers, content, dry_run=False, trust=allowed)


def info(store: Folder) -> None:
    """What a store holds, be it of a sweep or of a design, and how far it is."""
    from .._design.checkpoint import is_checkpoint

    with without_traceback():
        print_info_of_design(store) if is_checkpoint(store) else print_info_of_sweep(store)
