"""The example of docs/adding-a-method.md works as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from types import FunctionType

import pytest
import torch

import baselines
from sdpg.algorithms.base import Signals
from tests.algorithms import test_losses

PAGE = (Path(__file__).parents[1] / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


def test_the_example_of_a_method_has_the_loss_that_it_states(monkeypatch):
    code, case = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    name, cls = re.search(r'`"([\w-]+)": (\w+)`', PAGE).groups()
    namespace = {"__name__": "example"}
    exec(compile(code, "adding-a-method.md", "exec", dont_inherit=True), namespace)
    monkeypatch.setitem(baselines.REGISTRY, name, namespace[cls])
    algorithm = baselines.make(name, weight=0.5)
    assert algorithm.needs(1).teacher == "live" and algorithm.needs(1).divergence.kind == "reverse_kl"
    A = algorithm.advantages(torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(A, torch.tensor([[1.0, -0.5, -0.5]]))
    one = torch.ones(3, 2)
    s = Signals(logp=-one, logp_old=-one, logp_rollout=-one, entropy=one, mask=one, stop=0 * one, div=2 * one)
    loss = sum(algorithm.token_loss(s, A.reshape(-1, 1), 1).values())
    torch.testing.assert_close(loss, torch.tensor([[2.0, 2.0], [0.5, 0.5], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="weight"):
        baselines.make(name, weight=-1)
    losses = dict(vars(test_losses))
    exec(compile(case, "adding-a-method.md", "exec", dont_inherit=True), losses)
    (test,) = (thing for key, thing in losses.items() if isinstance(thing, FunctionType) and not hasattr(test_losses, key))
    for rewards in test_losses.REWARDS.values():
        test(rewards)


def test_the_page_names_the_file_of_the_method_and_its_config():
    assert "`baselines/rloo_opd.py`" in PAGE and "`config/methods/rloo-opd.yaml`" in PAGE
