"""Runs triton_cases.py under Triton's interpreter, compiles the kernels for CUDA, and does without Triton."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def python(*arguments, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parents[1]), **environment}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)


@needs_triton
def test_the_kernels_agree_with_float64_in_the_interpreter():
    done = python("-m", "pytest", "-p", "no:cacheprovider", str(FOLDER / "triton_cases.py"), TRITON_INTERPRET="1")
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert re.search(r"^18 passed", done.stdout, re.M)  # none skipped


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sdpg.core.head import triton as head_triton

numbers = ("cap", "cap_t", "scale", "scale_T", "b", "log_b", "log_1b", "clamp")
types = {"z": "*bf16", "t": "*bf16", "y": "*i64", "out": "*fp32", "stats": "*fp32", "c": "*fp32", "C": "i32", "V": "i32"}
types |= dict.fromkeys(numbers, "fp32")
options = {"B": 1024, "KIND": 3, "TEACHER": True, "OWN_T": True, "CAP": True, "CAP_TEACHER": True, "CLAMP": True}
for kernel in (head_triton._read, head_triton._write_gradient):
    names = kernel.arg_names
    constants = {(i,): options[n] for i, n in enumerate(names) if n in options}
    source = ASTSource(kernel, {n: types.get(n, "constexpr") for n in names}, constants)
    print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"].count(".entry"))
"""


@needs_triton
def test_the_kernels_compile_for_a_gpu(tmp_path):
    """For an H100, down to its instructions: what the interpreter accepts, the compiler may not."""
    done = python("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert done.stdout.split() == ["1", "1"], done.stderr[-3000:]


def test_without_triton_the_head_works():
    code = (
        "import sys, torch; sys.modules['triton'] = None\n"
        "from sdpg.core.head.api import Head, token_signals\n"
        "s = token_signals(torch.ones(2, 3), Head(torch.ones(5, 3)), torch.tensor([0, 1]))\n"
        "assert abs(s.entropy[0].item() - 1.6094379) < 1e-6"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
