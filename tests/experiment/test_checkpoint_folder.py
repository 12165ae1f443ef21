"""What is no model that can be trained is refused by name, by its files alone; and what only loading finds, in one line."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.architectures import make
from sdpg.config import ConfigError
from sdpg.experiment.base_model import make_base_model
from sdpg.experiment.checkpoint_folder import STATEFUL, folder_fault
from sdpg.experiment.inputs import check_model, engines_of
from sdpg.rollout.context import check_context
from sdpg.rollout.engines import make_engine
from sdpg.rollout.engines.vllm import REFUSES, VLLMEngine
from tests.scale import config_of
from tests.workflow.test_own_model import make_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "good"
    make_model(folder, ["1 + 1?"])
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def config(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def write(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def remove(*patterns):
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
ADAPTER = write("adapter_config.json", '{"base_model_name_or_path": "owner/base"}')
FAULTS = {
    "an adapter beside a config": (both(rename(WEIGHTS, "adapter_model.safetensors"), ADAPTER), r"is an adapter \(LoRA\)"),
    "GGUF": (both(remove("*.json", WEIGHTS), write("a.gguf", "x")), "has GGUF weights and no config.json"),
    "GGUF beside a config": (both(remove(WEIGHTS), write("a.gguf", "x")), "has its weights as a.gguf alone"),
    "other pickles": (rename(WEIGHTS, "consolidated.00.pth"), "has pickled weights only"),
    "weights of another library": (rename(WEIGHTS, "tf_model.h5"), "has its weights as tf_model.h5 alone"),
    "noise": (write(WEIGHTS, b"\xff" * 1000), "of 1000 bytes that is not a whole safetensors file"),
    "a header that is no JSON": (write(WEIGHTS, (4).to_bytes(8, "little") + b"abcd"), "not a whole safetensors file"),
    "a header of another kind": (write(WEIGHTS, (7).to_bytes(8, "little") + b'{"a":1}'), "not a whole safetensors file"),
    "a pointer": (write(WEIGHTS, POINTER), "has a pointer of Git LFS in place of model.safetensors"),
    "a shard that is missing": (
        write(INDEX, '{"weight_map": {"a": "model-2.safetensors", "b": "model.safetensors"}}'),
        f"lacks 1 of the 2 files in {INDEX}, first model-2.safetensors",
    ),
    "all shards that are missing": (
        both(remove(WEIGHTS), write(INDEX, '{"weight_map": {"a": "model-1.safetensors"}}')),
        "lacks 1 of the 1 files",
    ),
    "an index that is no JSON": (write(INDEX, "{"), f"has a {INDEX} that cannot be read"),
    "an index of another kind": (write(INDEX, '{"weight_map": [1]}'), f"has a {INDEX} that "),
    "a config without a kind": (write("config.json", "{}"), "has a config.json without model_type"),
    "a config that is no text": (write("config.json", b"\xff\xfe{}"), "has a config.json that cannot be read"),
    "quantised in another way": (config(compression_config={"format": "pack"}), r"is quantised \(pack\)"),
    "a reward model": (config(architectures=["LlamaForSequenceClassification"]), "but LlamaForSequenceClassification"),
    "an encoder with a decoder": (config(is_encoder_decoder=True, architectures=None), r"an encoder with a decoder \(llama\)"),
    "a state": (config(model_type="rwkv"), "is a rwkv model, which has layers with a state"),
    "layers with a state": (config(layer_types=["conv", "full_attention"]), "which has layers of kind conv"),
    "a text part with a state": (config(text_config={"model_type": "qwen3_5_text"}), "which has layers with a state"),
    "own code": (config(model_type="mine", auto_map={"AutoModel": "x.Y"}), "is a mine model.* code .* is never run"),
    "an unknown kind": (config(model_type="mine"), "is a mine model, which this version of transformers does not have;"),
    "what vLLM computes otherwise": (config(model_type="gpt_oss"), r"vllm \(train.engine\) does not take.*to in-process"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_trained_is_refused_by_its_files(fault, folder):
    engines = {"train.engine": "vllm"}
    assert folder_fault(folder, engines) is None
    change, expected = FAULTS[fault]
    change(folder)
    found = folder_fault(folder, engines)
    assert re.search(expected, found) and "\n" not in found


def test_the_dry_run_and_the_rule_both_ask_and_know_every_engine(folder):
    config(model_type="gpt_oss")(folder)
    made = config_of(model={"pretrained": str(folder)}, train={"engine": "in-process"})
    assert engines_of(made) == {"train.engine": "in-process", "evaluation.engine": "vllm", "evaluation.lm_eval": "vllm"}
    expected = r"vllm \(evaluation.engine\) does not take: .*; set it to in-process"
    with pytest.raises(ConfigError, match=f"model.pretrained: {folder} is a gpt_oss model, which {expected}"):
        check_model(str(folder), engines_of(made))
    assert refusal(made, folder).endswith("set it to in-process")
    made = config_of(model={"pretrained": str(folder)}, evaluation={"engine": "in-process"}, train={"engine": "in-process"})
    assert re.search(r"vllm \(evaluation.lm_eval\) does not take: .*; set it to null", folder_fault(folder, engines_of(made)))
    without = config_of(
        model={"pretrained": str(folder)}, evaluation={"engine": "in-process", "lm_eval": None}, train={"engine": "in-process"}
    )
    assert folder_fault(folder, engines_of(without)) is None


def refusal(made, folder) -> str:
    """The one line that the rule base_model ends with; it leaves nothing behind."""
    with pytest.raises(ValueError) as error:
        make_base_model(made, folder.parent / "made")
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and not list((folder.parent / "made").iterdir())
    return str(error.value)


def plain(folder):
    return config_of(model={"pretrained": str(folder)}, task={"verifier": "exact", "template": "plain"})


def drop(name):
    return lambda tensors: tensors.pop(name)


def shorten(name):
    return lambda tensors: tensors.update({name: tensors[name][:, :-1].contiguous()})


UP = "model.layers.0.mlp.up_proj.weight"
UNFIT = {
    "a weight that is missing": (drop(UP), f"it lacks 1 weights of LlamaForCausalLM, first {UP}"),
    "a weight of another shape": (shorten(UP), rf"1 of its weights .* another shape .* {UP}: \(64, 31\), expected \(64, 32\)"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_weights_that_do_not_fit_the_config_are_one_line(fault, folder):
    change, expected = UNFIT[fault]
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert re.search(expected, refusal(plain(folder), folder))


def test_a_head_of_its_own_under_a_config_that_ties_it_is_refused(folder):
    config(tie_word_embeddings=True)(folder)
    assert "its lm-head differs from its embedding, but config.json says tie_word_embeddings: true" in refusal(
        plain(folder), folder
    )


def test_weights_that_are_no_numbers_are_named_as_such(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] *= float("nan")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert "its hidden states are not finite numbers; the weights are broken" in refusal(plain(folder), folder)


def test_known_architectures_with_own_code_beside_them_are_taken_and_the_code_is_not_run(folder):
    config(auto_map={"AutoModelForCausalLM": "modeling_llama.Other", "AutoConfig": "modeling_llama.Config"})(folder)
    (folder / "modeling_llama.py").write_text("raise RuntimeError('this must not be run')")
    make_base_model(plain(folder), folder.parent / "made")
    kept = json.loads((folder.parent / "made" / "base0" / "config.json").read_text())
    assert kept["architectures"] == ["LlamaForCausalLM"]


def test_a_model_whose_tokens_see_later_ones_is_refused(folder):
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    transformers.BertLMHeadModel(transformers.BertConfig(**sizes, initializer_range=0.3)).save_pretrained(folder)
    assert "tokens of BertLMHeadModel see later ones; take a causal language model" in refusal(plain(folder), folder)


def test_a_part_of_text_without_a_class_of_its_own_is_refused_by_name(folder):
    transformers.Qwen2_5_VLConfig().save_pretrained(folder)
    config(architectures=["Qwen2_5_VLForConditionalGeneration"])(folder)
    assert "Qwen2_5_VLConfig" in refusal(plain(folder), folder)


def test_every_kind_with_a_state_is_known_by_its_name():
    """Those of this version of transformers, by the text of their files, since importing all takes a minute."""
    models = Path(transformers.__file__).parent / "models"
    stateful = set()
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        files = (models / model_type_to_module_name(kind)).glob("modeling_*.py")
        if any("_is_stateful = True" in file.read_text(encoding="utf-8") for file in files):
            stateful.add(kind)
    assert stateful <= STATEFUL and len(stateful) > 10


@pytest.mark.parametrize("kind", REFUSES)
def test_vllm_refuses_by_name_before_it_starts(kind, tmp_path):
    make(kind, tmp_path)
    with pytest.raises(ValueError, match=f"vLLM cannot serve the {kind} model .*; set the engine to in-process"):
        VLLMEngine(tmp_path, dtype="float32", max_len=40)


def test_vllm_refuses_cohere2_where_its_window_matters(tmp_path):
    make("cohere2", tmp_path)
    with pytest.raises(ValueError, match="40 tokens are more than the sliding window .*, 8, and vLLM's window"):
        VLLMEngine(tmp_path, dtype="float32", max_len=40)


@pytest.mark.parametrize("engine", ["vllm", "in-process"])
def test_more_tokens_than_a_model_has_positions_are_refused_by_every_engine(engine, tmp_path):
    make("llama", tmp_path)
    with pytest.raises(ValueError, match="max_len is 129 tokens, but the model in .* has a context of 128; shorten"):
        make_engine(engine, tmp_path, dtype="float32", max_len=129)


def test_of_scaled_positions_no_limit_is_known():
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0}
    check_context(transformers.LlamaConfig(max_position_embeddings=128, rope_parameters=scaled), 500, "mine")
    with pytest.raises(ValueError, match="mine has a context of 128"):
        check_context(transformers.LlamaConfig(max_position_embeddings=128), 500, "mine")
