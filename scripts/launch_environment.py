"""Environments for programs that are to be alone, or ranks of the caller's own making, wherever it was started itself."""
import os

# How the variables begin by which a launcher tells a process which rank it is (docs/faults.md).
LAUNCHERS = ("OMPI_COMM_", "PMIX_", "PMI_", "SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")


def without_launcher(**extra):
    """This process' environment less what a launcher put there, with `extra` added."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    return own | {name: str(value) for name, value in extra.items()}
