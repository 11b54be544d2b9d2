"""The pure core: numpy columns and compiled kernels, no I/O.

Compiled kernels are cached in a folder named after the content of all kernel sources: numba itself notices a change
of the file a kernel stands in, but not of the files it calls into. It is told even when somebody imported it before.
"""

import hashlib
import os
from pathlib import Path

from numba import config

# Raised whenever the same steps could give other outputs or another state.
ENGINE_VERSION = 7


def kernel_cache() -> Path:
    """Where compiled kernels are kept: NUMBA_CACHE_DIR, else the user's cache folder."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in ("engine", "intake"):
        for source in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "liftstream" / digest.hexdigest()


os.environ.setdefault("NUMBA_CACHE_DIR", str(kernel_cache()))
config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]
