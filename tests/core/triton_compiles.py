"""Compiles the head's kernels for the GPU in CAPABILITY (80, 90); run by test_head_triton_compiles.py in a separate process.

There is no GPU: `fused` runs on CPU tensors with its launches caught, and what it would have launched is compiled.
"""

import os
import re

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import baselines
from sdpg.algorithms.divergences import Divergence
from sdpg.core.head import triton as head_triton
from sdpg.core.head.torch import Reading

CAPABILITY = int(os.environ["CAPABILITY"])
SHARED = {80: 163 * 1024, 90: 227 * 1024}[CAPABILITY]  # bytes that one program may take
REGISTERS = 65536  # of a multiprocessor: a program that wants more cannot start
SPILLED = 64  # bytes a thread that may leave the registers
VOCABULARY, ROWS = 151936, 3  # Qwen3's; a number of rows that nothing divides
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64"}
STEPS = range(1, 401)


def readings() -> list[tuple[bool, Reading]]:
    """Whether there is a teacher, and how logits are read: by the methods with their defaults, and with every option."""
    needs = [baselines.make(name).needs(k) for name in baselines.REGISTRY for k in STEPS]
    found = {(False, Reading())} | {(True, Reading(divergence=n.divergence)) for n in needs if n.teacher is not None}
    for kind in head_triton.KINDS:
        found.add((True, Reading(divergence=Divergence(kind=kind))))
        everything = Divergence(kind=kind, temperature=1.1, clamp=0.05, clamp_total=20.0)
        found.add((True, Reading(0.7, 30.0, 30.0, everything)))
    found.add((False, Reading(softcap=30.0)))
    return sorted((x for x in found if x[1].divergence is None or x[1].divergence.has_closed_slope), key=repr)


def launches() -> dict[str, tuple]:
    """The different launches of all readings, in both precisions, and of rows of one entry: kernel, arguments, switches."""
    caught = []
    head_triton._launch = lambda kernel, *arguments, **switches: caught.append((kernel, arguments, switches))
    for dtype, V in ((torch.float32, VOCABULARY), (torch.bfloat16, VOCABULARY), (torch.float32, 1)):
        z, y = torch.zeros(ROWS, V, dtype=dtype), torch.zeros(ROWS, dtype=torch.long)
        for teacher, how in readings() if V > 1 else [(True, Reading(divergence=Divergence(kind="gjsd")))]:
            _, gradient = head_triton.fused(z, z if teacher else None, y, how, True)
            ones = torch.ones(ROWS)
            gradient((ones, ones, None if how.divergence is None else ones), slice(None))
    return {_name(*found): found for found in caught}


def _name(kernel, arguments, switches) -> str:
    return f"{kernel.fn.__name__}, {arguments[0].dtype}, {switches}"


LAUNCHES = launches()


def source(kernel, arguments, switches) -> ASTSource:
    """What Triton's launcher makes of a call: types by value, constants, and which numbers and addresses 16 divides."""
    types, constants, divisible = {}, {}, {}
    values = iter(arguments)
    for i, name in enumerate(kernel.arg_names):
        if name in switches:
            types[name], constants[(i,)] = "constexpr", switches[name]
            continue
        value = next(values)
        if isinstance(value, torch.Tensor):
            types[name] = POINTERS[value.dtype]
        else:
            types[name] = "i32" if isinstance(value, int) else "fp32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            divisible[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, types, constants, divisible)


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_a_launch(launch, capsys):
    kernel, _, switches = launch
    options = {"num_warps": switches["num_warps"]}
    compiled = triton.compile(source(*launch), target=GPUTarget("cuda", CAPABILITY, 32), options=options)
    assert f".target sm_{CAPABILITY}" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 0
    assert compiled.metadata.shared < SHARED
    log = capsys.readouterr().out
    if "ptxas info" not in log:
        pytest.skip("this Triton does not show ptxas's log (TRITON_DUMP_PTXAS_LOG=1)")
    (registers,) = map(int, re.findall(r"Used (\d+) registers", log))
    assert registers * 32 * compiled.metadata.num_warps <= REGISTERS
    (stored, loaded) = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log).groups()
    assert max(int(stored), int(loaded)) <= SPILLED, kernel.fn.__name__


def test_the_launches_are_those_of_all_kinds():
    for kernel in (head_triton._read, head_triton._write_gradient):
        mine = [s for k, _, s in LAUNCHES.values() if k is kernel]
        assert {s["KIND"] for s in mine} == {0, *head_triton.KINDS.values()}
    assert {s["TEACHER"] for k, _, s in LAUNCHES.values() if k is head_triton._read} == {False, True}
