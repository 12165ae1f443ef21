"""The head's Triton kernels compile for an A100 (sm_80) and an H100 (sm_90), as training launches them; no GPU is needed.

The variants are those that `fused` asks for: its launches are caught, one for each way of reading that a method of the
registry has, and for every option of a divergence.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]
FOLDER = Path(__file__).parent


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.long), 90])
def test_every_variant_compiles_fits_and_does_not_spill(capability, tmp_path):
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parents[1]), "TRITON_INTERPRET": "0"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DUMP_PTXAS_LOG": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(FOLDER / "triton_compiles.py")]
    done = subprocess.run(
        command, env=os.environ | environment | {"CAPABILITY": str(capability)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
