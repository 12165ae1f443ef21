"""The rollout contract, on every engine: sdpg/rollout/engine.py says what, these tests say that it holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM

from sdpg.rollout.engines import engine_module, label, lm_eval_engine, make_engine, names, temperatures
from sdpg.types import Sampling
from tests.rollout.conftest import MAX_LEN, weights

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
LONG = 24


def sampling(tiny, temperature=1.0, max_tokens=LONG, stop=()):
    return Sampling(temperature, max_tokens, (tiny.eos, *stop))


def reference(path, prompt, ids, temperature):
    """log p of ids after prompt, by one plain forward pass: [len(ids)]."""
    model = AutoModelForCausalLM.from_pretrained(path).float().eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / (temperature or 1.0), -1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def flat(groups):
    return [rollout for group in groups for rollout in group]


def test_shapes_and_types(engine, tiny):
    groups = engine.generate(PROMPTS, 4, sampling(tiny), seed=0)
    assert [len(group) for group in groups] == [4, 4, 4]
    for rollout in flat(groups):
        assert 1 <= len(rollout.ids) <= LONG
        assert len(rollout.logprobs) == len(rollout.ids)
        assert all(isinstance(i, int) and 0 <= i < tiny.vocabulary for i in rollout.ids)
        assert all(isinstance(p, float) and p <= 0 for p in rollout.logprobs)
        assert rollout.policy_version == 0


def test_stop_tokens_are_kept_and_nothing_follows(engine, tiny):
    stops = set(range(3, 15)) | {tiny.eos}
    rollouts = flat(engine.generate(PROMPTS, 16, sampling(tiny, stop=tuple(range(3, 15))), seed=1))
    stopped = [r for r in rollouts if r.finish_reason == "stop"]
    assert len(stopped) > 20
    for r in stopped:
        assert r.ids[-1] in stops
        assert not stops & set(r.ids[:-1])


def test_eos_stops_and_is_kept(engine, tiny):
    rollouts = flat(engine.generate(PROMPTS, 128, sampling(tiny, temperature=2.0), seed=2))
    stopped = [r for r in rollouts if r.finish_reason == "stop"]
    assert stopped
    assert all(r.ids[-1] == tiny.eos and r.ids.count(tiny.eos) == 1 for r in stopped)


def test_truncation_is_flagged(engine, tiny):
    rollouts = flat(engine.generate(PROMPTS, 16, sampling(tiny, max_tokens=3), seed=3))
    for r in rollouts:
        assert r.finish_reason == ("stop" if r.ids[-1] == tiny.eos else "length")
        assert r.finish_reason == "stop" or len(r.ids) == 3
    assert any(r.finish_reason == "length" for r in rollouts)


def test_a_stop_token_at_the_limit_is_a_stop(engine, tiny):
    every = tuple(i for i in range(tiny.vocabulary) if i != tiny.eos)
    rollouts = flat(engine.generate(PROMPTS, 4, sampling(tiny, max_tokens=1, stop=every), seed=4))
    assert {(len(r.ids), r.finish_reason) for r in rollouts} == {(1, "stop")}


def test_same_seed_reproduces_and_other_seeds_differ(engine, tiny):
    first = engine.generate(PROMPTS, 4, sampling(tiny), seed=7)
    assert engine.generate(PROMPTS, 4, sampling(tiny), seed=7) == first
    assert engine.generate(PROMPTS, 4, sampling(tiny), seed=8) != first


def test_groups_that_come_one_by_one_are_the_same(engine, tiny):
    if not hasattr(engine, "generate_each"):
        pytest.skip("it gives all groups at the end")
    limits = sampling(tiny, max_tokens=12)
    found = list(engine.generate_each(PROMPTS, 4, limits, seed=7))
    assert sorted(i for i, _ in found) == list(range(len(PROMPTS)))
    assert [group for _, group in sorted(found, key=lambda x: x[0])] == engine.generate(PROMPTS, 4, limits, seed=7)
    assert list(engine.generate_each([], 4, limits, seed=7)) == []


def test_seeds_per_prompt_do_not_depend_on_the_batch(engine, tiny):
    groups = engine.generate(PROMPTS, 4, sampling(tiny), seed=[10, 11, 12])
    alone = engine.generate(PROMPTS[1:2], 4, sampling(tiny), seed=[11])
    assert [r.ids for r in alone[0]] == [r.ids for r in groups[1]]


def test_same_prompts_and_neighbouring_seeds_draw_different_samples(engine, tiny):
    groups = engine.generate([PROMPTS[0]] * 4, 4, sampling(tiny), seed=5)
    assert len({tuple(r.ids) for r in flat(groups)}) > 12
    groups = engine.generate([PROMPTS[0]] * 4, 4, sampling(tiny), seed=[0, 1, 2, 3])
    assert len({tuple(r.ids) for r in flat(groups)}) > 12


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_logprobs_are_those_of_the_sampling_distribution(engine, tiny, temperature):
    groups = engine.generate(PROMPTS, 3, sampling(tiny, temperature), seed=9)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for r in group:
            expected = reference(tiny.path, prompt, r.ids, temperature)
            torch.testing.assert_close(torch.tensor(r.logprobs), expected, rtol=0, atol=1e-4)


def test_temperature_zero_takes_the_most_probable_token(engine, tiny):
    """Its log-probs are those of temperature 1: of the distribution at 0 they would all be 0."""
    groups = engine.generate(PROMPTS, 2, sampling(tiny, 0.0), seed=9)
    assert groups == engine.generate(PROMPTS, 2, sampling(tiny, 0.0), seed=10)
    model = AutoModelForCausalLM.from_pretrained(tiny.path).eval()
    for prompt, group in zip(PROMPTS, groups, strict=True):
        assert group[0].ids == group[1].ids
        ids = group[0].ids
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(chosen, logits.max(-1).values, rtol=0, atol=1e-4)
        torch.testing.assert_close(torch.tensor(group[0].logprobs), reference(tiny.path, prompt, ids, 0.0), rtol=0, atol=1e-4)


def test_an_engines_lowest_and_highest_temperatures_are_its_own(engine, tiny):
    """It samples at them from the very distribution, without a change of its own."""
    name = next(name for name in names() if isinstance(engine, engine_module(name).ENGINE))
    for temperature in temperatures(name):
        for group, prompt in zip(engine.generate(PROMPTS, 2, sampling(tiny, temperature), seed=3), PROMPTS, strict=True):
            for r in group:
                expected = reference(tiny.path, prompt, r.ids, temperature)
                torch.testing.assert_close(torch.tensor(r.logprobs), expected, rtol=0, atol=1e-4 / min(1, temperature))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_follow_the_exact_distribution(engine, tiny, temperature):
    """Chi-square of first tokens against the model's probabilities; tokens expected less than 5 times are one class."""
    n, prompt = 2000, PROMPTS[1]
    model = AutoModelForCausalLM.from_pretrained(tiny.path).eval()
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] / temperature, -1).tolist()
    groups = engine.generate([prompt] * 20, n // 20, sampling(tiny, temperature, max_tokens=1), seed=123)
    counts = Counter(r.ids[0] for r in flat(groups))
    common = [i for i in range(len(p)) if n * p[i] >= 5]
    assert len(common) >= 5
    observed = [counts[i] for i in common] + [n - sum(counts[i] for i in common)]
    expected = [n * p[i] for i in common] + [max(n - sum(n * p[i] for i in common), 1e-9)]
    if expected[-1] < 5:
        assert observed.pop() < 25
        expected.pop()
    chi2 = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
    freedom = len(observed) - 1
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5 + 8  # about one in 10^5 for the right distribution


def test_samples_of_neighbouring_positions_are_independent(engine, tiny):
    """The second token must not be tied to the first through the seed: on a prompt seen twice, pairs must vary."""
    groups = engine.generate([PROMPTS[2]] * 50, 4, sampling(tiny, 2.0, max_tokens=2), seed=77)
    seconds = {}
    for r in flat(groups):
        if len(r.ids) == 2:
            seconds.setdefault(r.ids[0], Counter())[r.ids[1]] += 1
    largest = max(seconds.values(), key=lambda c: c.total())
    assert len(largest) > 1


def test_load_weights_changes_policy_logprobs_and_version(engine, tiny):
    before = engine.generate(PROMPTS, 4, sampling(tiny), seed=20)
    engine.sleep()
    engine.load_weights(iter(weights(tiny.other)), 17)
    after = engine.generate(PROMPTS, 4, sampling(tiny), seed=20)
    assert [r.ids for r in flat(after)] != [r.ids for r in flat(before)]
    assert {r.policy_version for r in flat(after)} == {17}
    for prompt, group in zip(PROMPTS, after, strict=True):
        expected = reference(tiny.other, prompt, group[0].ids, 1.0)
        torch.testing.assert_close(torch.tensor(group[0].logprobs), expected, rtol=0, atol=1e-4)
    engine.load_weights(weights(tiny.path), 18)
    again = engine.generate(PROMPTS, 4, sampling(tiny), seed=20)
    assert [r.ids for r in flat(again)] == [r.ids for r in flat(before)]


def test_missing_weights_are_an_error_and_change_nothing(engine, tiny):
    before = engine.generate(PROMPTS, 2, sampling(tiny), seed=21)
    with pytest.raises(ValueError, match=r"missing|not given"):
        engine.load_weights([], 3)
    assert engine.generate(PROMPTS, 2, sampling(tiny), seed=21) == before


def test_more_prompts_than_fit_at_once(engine, tiny):
    prompts = [[3 + i % 10, 4 + i % 7, *[6] * (i % 20)] for i in range(300)]
    groups = engine.generate(prompts, 2, sampling(tiny, max_tokens=8), seed=30)
    assert len(groups) == 300
    assert engine.generate(prompts[250:251], 2, sampling(tiny, max_tokens=8), seed=[1]) == engine.generate(
        prompts[250:251], 2, sampling(tiny, max_tokens=8), seed=[1]
    )


def test_bad_prompts_say_which_and_what(engine, tiny):
    with pytest.raises(ValueError, match="prompt 1.*empty"):
        engine.generate([[5], []], 1, sampling(tiny), seed=0)
    with pytest.raises(ValueError, match=f"prompt 2.*{MAX_LEN - LONG + 1} tokens.*{MAX_LEN}"):
        engine.generate([[5], [6], [7] * (MAX_LEN - LONG + 1)], 1, sampling(tiny), seed=0)
    assert len(engine.generate([[7] * (MAX_LEN - LONG)], 1, sampling(tiny), seed=0)[0]) == 1
    with pytest.raises(ValueError, match="2 seeds for 1 prompts"):
        engine.generate([[5]], 1, sampling(tiny), seed=[1, 2])


def test_what_an_engine_says_of_itself_is_known_without_importing_it():
    assert [label("vllm"), label("in-process")] == ["vLLM", "in-process"]
    assert [lm_eval_engine("vllm"), lm_eval_engine("in-process")] == ["vllm", "vllm"]


def test_engine_names_and_arguments_are_checked(tiny, tmp_path):
    with pytest.raises(ValueError, match="unknown rollout engine 'vlm'"):
        make_engine("vlm", tiny.path, dtype="float32", max_len=MAX_LEN)


def test_vllm_arguments_are_checked_before_vllm_starts(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        make_engine("vllm", tmp_path, dtype="float32", max_len=MAX_LEN)
    with pytest.raises(ValueError, match="context of 256"):
        make_engine("vllm", tiny.path, dtype="float32", max_len=300)
    with pytest.raises(ValueError, match="dtype 'float64'"):
        make_engine("vllm", tiny.path, dtype="float64", max_len=MAX_LEN)


def test_starting_vllm_leaves_the_processs_random_state_and_threads_alone():
    from sdpg.rollout.engines.vllm import _process_state_kept

    state, set_num_threads = torch.get_rng_state(), torch.set_num_threads
    with pytest.raises(KeyError), _process_state_kept():
        torch.manual_seed(1)
        torch.set_num_threads = None
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.set_num_threads is set_num_threads


def test_cpu_cache_fits_the_model(tiny):
    from transformers import AutoConfig

    from sdpg.rollout.engines.vllm import cpu_cache_bytes

    config = AutoConfig.from_pretrained(tiny.path)
    token = 2 * 2 * 1 * 32 * 4  # keys and values, layers, kv heads, head_dim, bytes
    assert cpu_cache_bytes(config, "float32", 64, 512) == 512 * 256 * token
    assert cpu_cache_bytes(config, "bfloat16", 64, 512) == 512 * 256 * token // 2
    assert cpu_cache_bytes(config, "float32", 64, 10**9) == 4 * 2**30


def test_version_shim_answers_for_the_cpu_build_and_is_undone():
    import importlib.metadata as metadata

    from sdpg.rollout.vllm_environment import is_cpu_build, vllm_version_shim

    original = metadata.version
    with vllm_version_shim():
        assert ("cpu" in metadata.version("vllm")) == is_cpu_build()
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("no-such-package-anywhere")
    assert metadata.version is original


def test_rollout_package_does_not_import_vllm():
    code = "import sys, sdpg.rollout, sdpg.rollout.engines.vllm; assert 'vllm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": "."})
