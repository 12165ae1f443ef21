"""The models of the benchmarks as HF checkpoints under results/benchmarks/models/, made once.

`tiny` is the suite's tiny model and the Qwen3 shapes are the true ones, all with random weights: no speed depends on them. Of
SmolLM2-135M the weights come from its package. A Qwen3 checkpoint takes 1.2 to 8 GB of disk.
"""

import os
import shutil
from pathlib import Path

from sdpg.config.files import read_mapping
from sdpg.experiment.architecture import TABLE

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "results" / "benchmarks" / "models"
CPU_MODELS = ("tiny", "smollm2-135m")
QWEN3 = {"qwen3-0.6b": "Qwen/Qwen3-0.6B", "qwen3-1.7b": "Qwen/Qwen3-1.7B", "qwen3-4b": "Qwen/Qwen3-4B"}  # name -> hub id
NAMES = (*CPU_MODELS, *QWEN3)
FIRST_ID = 3  # ids below are special in every tokenizer used here


def qwen3_sizes(name: str) -> dict:
    """The sizes of a true Qwen3 shape, by the keys of a config.json."""
    return read_mapping(TABLE)[QWEN3[name]]


def qwen3_config(name: str):
    """The HF config of a true Qwen3 shape."""
    from transformers import Qwen3Config

    return Qwen3Config(
        **{key: value for key, value in qwen3_sizes(name).items() if key != "model_type"},
        max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def checkpoint(name: str, folder: Path = MODELS) -> Path:
    """The folder of a model's checkpoint with its tokenizer, made if it is not there yet."""
    target = folder / name
    if not (target / "config.json").is_file():
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _make(name, temporary)
            shutil.rmtree(target, ignore_errors=True)
            (temporary / "base0" if (temporary / "base0").is_dir() else temporary).rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _make(name: str, folder: Path) -> None:
    from sdpg.config import resolve
    from sdpg.experiment.base_model import POSITIONS, make_base_model, new_model
    from sdpg.tasks.tokenizer import character_tokenizer

    if name == "smollm2-135m":
        make_base_model(resolve("lm"), folder)
        return
    tokenizer = character_tokenizer(max_length=POSITIONS)
    if name == "tiny":
        settings = resolve("cpu-chain").model.warm_start
        model = new_model(settings, settings.seeds[0], tokenizer)
    else:
        model = _random_model(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _random_model(name: str):
    """bf16, drawn where it is fast."""
    import torch
    from transformers import Qwen3ForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Qwen3ForCausalLM(qwen3_config(name))
    finally:
        torch.set_default_dtype(before)


def ids_of(model_dir: Path) -> range:
    """The token ids that a fixed batch may use."""
    from transformers import AutoConfig, AutoTokenizer

    vocabulary = AutoConfig.from_pretrained(model_dir).vocab_size
    special = AutoTokenizer.from_pretrained(model_dir).all_special_ids
    return range(max([FIRST_ID - 1, *(i for i in special if i < 100)]) + 1, vocabulary)


def precision_of(name: str) -> str:
    """fp32 for the tiny model, bf16 with float32 masters for the others, as the suite's scales have it."""
    return "fp32" if name == "tiny" else "bf16"
