"""The architectures that the suite is tested with: a tiny random checkpoint of each, and what vLLM makes of it.

    python -m benchmarks.architectures [MODEL_TYPE ...]   # starts vLLM for each, half a minute; writes docs/models.md's table

tests/core/test_architectures.py holds the rest of the table: training, resuming, saving and the in-process engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdpg.io import read_json, write_json
from sdpg.rollout.engines import refuses

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
DOCS = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
VOCAB = 24
CLOSE = 1e-3  # nats: what two implementations may differ by in float32
PLAIN = {"vocab_size": VOCAB, "hidden_size": 64, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
SMALL = PLAIN | {"num_hidden_layers": 2, "num_attention_heads": 2}
COMMON = SMALL | {  # a head of 32 is the smallest that vLLM takes on a CPU
    "intermediate_size": 64,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
}
ALL_HEADS = {"num_key_value_heads": 2}
SLIDING = {"sliding_window": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GRANITE = {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3}


@dataclass(frozen=True)
class Architecture:
    """A model that the architecture is known by, the config of a tiny one, and how it is read in training."""

    example: str
    config: dict[str, Any] = field(default_factory=lambda: COMMON)
    packed: bool = True  # else padded rows
    note: str = ""
    vllm: dict[str, Any] = field(default_factory=dict)  # what else is in the config with which vLLM is measured


def _sliding(example: str, note: str = "", **config: Any) -> Architecture:
    return Architecture(example, COMMON | SLIDING | config, False, f"sliding window{note}")


def _experts(example: str, note: str = "", **config: Any) -> Architecture:
    return Architecture(example, COMMON | EXPERTS | config, True, f"experts{note}")


GPT2 = {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128, "eos_token_id": 1}
MPT = {"vocab_size": VOCAB, "d_model": 64, "n_layers": 2, "n_heads": 2, "max_seq_len": 128, "eos_token_id": 1}
ARCHITECTURES = {
    "llama": Architecture("Llama 3"),
    "qwen2": Architecture("Qwen2.5"),
    "qwen3": Architecture("Qwen3", note="the paper's"),
    "qwen3_moe": _experts("Qwen3-30B-A3B"),
    "qwen2_moe": _experts("Qwen1.5-MoE-A2.7B", shared_expert_intermediate_size=32),
    "mistral": _sliding("Mistral 7B"),
    "mixtral": _experts("Mixtral 8x7B"),
    "gemma": Architecture("Gemma"),
    "gemma2": _sliding("Gemma 2", ", soft caps", query_pre_attn_scalar=32, attn_logit_softcapping=2.0),
    "gemma3_text": _sliding("Gemma 3, its text part", query_pre_attn_scalar=32),
    "phi": Architecture("Phi-2", COMMON | ALL_HEADS),
    "phi3": Architecture("Phi-3, Phi-4", COMMON | ALL_HEADS),
    "olmo2": Architecture("OLMo 2"),
    "olmo3": _sliding("OLMo 3"),
    "olmoe": _experts("OLMoE"),
    "smollm3": Architecture("SmolLM3"),
    "granite": Architecture("Granite 3", COMMON | GRANITE, note="logits divided"),
    "granitemoe": _experts("Granite 3 MoE", ", logits divided", **GRANITE),
    "cohere": Architecture("Command R", COMMON | {"logit_scale": 0.25}, note="logits multiplied"),
    "cohere2": Architecture(
        "Command R7B",
        COMMON | SLIDING | {"logit_scale": 0.25},
        False,
        "logits multiplied, sliding window: vLLM's is one token longer than transformers', and refused where that matters",
        {"sliding_window": 64},
    ),
    "glm4": Architecture("GLM-4"),
    "glm4_moe": _experts(
        "GLM-4.5", n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1, **ALL_HEADS, note=", biased routers"
    ),
    "starcoder2": Architecture("StarCoder2"),
    "stablelm": Architecture("StableLM 2", packed=False),
    "seed_oss": Architecture("Seed-OSS", note="dropout switched off"),
    "exaone4": _sliding("EXAONE 4"),
    "gpt_oss": Architecture(
        "gpt-oss",
        COMMON | SLIDING | EXPERTS,
        False,
        "attention sinks, experts; published in MXFP4, which is refused: take a bf16 copy",
    ),
    "gpt_neox": Architecture(
        "Pythia", SMALL | {"intermediate_size": 64, "max_position_embeddings": 128}, note="`embed_out.weight` in checkpoints"
    ),
    "gpt2": Architecture("GPT-2", GPT2, note="dropout switched off"),
    "opt": Architecture(
        "OPT", SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 64, "max_position_embeddings": 128}, note="dropout switched off"
    ),
    "bloom": Architecture(
        "BLOOM",
        PLAIN | {"n_layer": 2, "n_head": 2},
        False,
        "ALiBi, no longest sequence; vLLM takes the exact GELU, transformers an approximation",
    ),
    "mpt": Architecture("MPT", MPT, False, "ALiBi"),
    "falcon": Architecture("Falcon", SMALL | {"alibi": True}, False, "ALiBi"),
}


def make(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a tiny random checkpoint of an architecture, without a tokenizer -> its folder."""
    random_model(kind, ARCHITECTURES[kind].config | changes, seed).save_pretrained(folder)
    return folder


def random_model(kind: str, config: dict[str, Any], seed: int = 0):
    """Return a model with weights so large that all of them matter: logits differ, experts are chosen, biases are not 0."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config), dtype=torch.float32)
        buffers = [x for name, x in model.named_buffers() if name in model.state_dict() and x.is_floating_point()]
        for p in [*model.parameters(), *buffers]:
            p.copy_(torch.randn_like(p) * 0.15 if p.dim() > 1 else p + 0.1 * torch.randn_like(p))
    return model


def vllm_gap(kind: str, folder: Path) -> dict[str, float]:
    """Start vLLM on one checkpoint and train another with it for three steps; then give it what was saved, as evaluation does.

    Returns, in nats, the largest and the mean gap of the engine's log-probs from the trainer's, and the largest from
    transformers' after the last.
    """
    import torch

    import baselines
    from benchmarks.gpu.tiny import EOS, TokenTask
    from sdpg.config.settings import Train
    from sdpg.core.trainer import Trainer
    from sdpg.evaluation.agreement import Reference
    from sdpg.evaluation.checkpoints import load_checkpoints, named_tensors
    from sdpg.rollout.engines import make_engine
    from sdpg.tasks.tokenizer import character_tokenizer
    from sdpg.types import Problem, Sampling

    first, base = (make(kind, folder / str(seed), seed, **ARCHITECTURES[kind].vllm) for seed in (0, 1))
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(first)
    sizes = {"prompts_per_step": 4, "group_size": 4, "max_prompt_tokens": 24, "max_response_tokens": 16}
    config = Train(
        **sizes, engine="vllm", steps=3, lr=1e-2, warmup_steps=1, micro_batch_tokens=4096, checkpoint_every=3, validate_every=9
    )
    problems = [Problem(str(i), " ".join(str(3 + (i + j) % 20) for j in range(2 + 3 * i)), "5", "", "test") for i in range(6)]
    engine = make_engine("vllm", first, dtype="float32", max_len=40, threads=1)
    try:
        trainer = Trainer(
            config,
            baselines.make("grpo", kl_coef=0.1),
            base=base,
            tokenizer=tokenizer,
            task=TokenTask(),
            engine=engine,
            problems=problems,
            seed=0,
            validation={},
            work=folder / "work",
            identity={},
            title=kind,
        )
        trainer.run()
        last = load_checkpoints(folder / "work")[-1].path
        engine.load_weights(named_tensors(last), 4)
        prompts = [TokenTask().student_prompt(problem) for problem in problems]
        groups = engine.generate(prompts, 1, Sampling(1.0, 16, (EOS,)), 0)
    finally:
        engine.close()
    rows = [json.loads(line) for line in (folder / "work" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rollouts = [r for group in groups for r in group]
    true = Reference(last, "float32").logprobs(prompts, [r.ids for r in rollouts], temperature=1.0)
    gap = (torch.cat([torch.tensor(r.logprobs) for r in rollouts]) - true).abs().max().item()
    return {
        "largest": max(row["logprob_gap_max"] for row in rows),
        "mean": max(row["logprob_gap_mean"] for row in rows),
        "evaluation": gap,
        "tokens": sum(row["tokens"] for row in rows),
    }


def measured(kind: str) -> dict[str, Any]:
    """Return `vllm_gap` of a process of its own, or the error that it ended with."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import json, sys; from pathlib import Path; from benchmarks.architectures import vllm_gap; "
        code += "print('GAP', json.dumps(vllm_gap(sys.argv[1], Path(sys.argv[2]))))"
        command = [sys.executable, "-c", code, kind, folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=os.environ)
    if found := [line for line in done.stdout.splitlines() if line.startswith("GAP ")]:
        return json.loads(found[-1][4:])
    errors = [line for line in done.stderr.splitlines() if "Error" in line] or ["no output"]
    return {"error": errors[-1].strip().replace(folder, "")[:300]}


def table() -> str:
    """Return the table of docs/models.md, without the rows of what is refused."""
    results = read_json(RESULTS) if RESULTS.is_file() else {}
    lines = ["| `model_type` | such as | rows | vLLM on a CPU | notes |", "|---|---|---|---|---|"]
    for kind, architecture in ARCHITECTURES.items():
        rows = "packed" if architecture.packed else "padded"
        lines.append(f"| `{kind}` | {architecture.example} | {rows} | {_vllm(results.get(kind), kind)} | {architecture.note} |")
    return "\n".join(lines)


def _vllm(found: dict[str, Any] | None, kind: str) -> str:
    if why := refuses("vllm", kind):
        return f"refused: {why}"
    if found is None:
        return "not run"
    if "error" in found:
        return "does not start"
    return f"{max(found['largest'], found['evaluation']):.0e}"


def main(kinds: list[str]) -> None:
    """Measure these architectures, by default all that vLLM is not known to refuse, and write results and table."""
    for kind in kinds or [kind for kind in ARCHITECTURES if not refuses("vllm", kind)]:
        found = measured(kind)
        print(kind, found, flush=True)
        results = read_json(RESULTS) if RESULTS.is_file() else {}
        write_json(
            RESULTS, {k: v for k, v in (results | {kind: found}).items() if k in ARCHITECTURES and not refuses("vllm", k)}
        )
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
