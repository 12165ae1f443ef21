"""The user's own files: their content decides, it is read once, and what is no checkpoint is refused before work."""

import json
import os

import pytest

from sdpg.config import ConfigError, resolve
from sdpg.experiment import inputs
from sdpg.experiment.workflow import Scale

FILES = ("model.safetensors", "model.safetensors.index.json", "tokenizer.json", "chat_template.jinja", "config.json")
WHOLE = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (*FILES, "README.md", "optimizer.pt", "trainer_state.json", ".hidden.json"):
        (folder / name).write_bytes(WHOLE.get(name, name.encode()))
        os.utime(folder / name, (1e9, 1e9))
    return folder


def scale_of(folder, **keys) -> Scale:
    text = {"name": "mine", "extends": "smoke", "model": {"warm_start": None, "pretrained": str(folder)}, **keys}
    with open("mine.yaml", "w", encoding="utf-8") as file:
        json.dump(text, file)
    return Scale("mine.yaml", {})


@pytest.mark.parametrize("name", FILES)
def test_other_content_of_any_file_that_is_read_counts_whatever_its_date(model, name):
    before = scale_of(model).own_content("base_model")
    assert before == scale_of(model).own_content("base_model") and len(before) == len(FILES)
    (model / name).write_bytes((model / name).read_bytes()[::-1])  # as long as before
    os.utime(model / name, (1e9, 1e9))  # and as old
    after = scale_of(model).own_content("base_model")
    assert [old.split()[0] for old, new in zip(before, after, strict=True) if old != new] == [f"content={name}"]


@pytest.mark.parametrize("name", ["README.md", "optimizer.pt", "trainer_state.json"])
def test_what_no_model_is_loaded_from_does_not_count(model, name):
    before = scale_of(model).own_content("base_model")
    (model / name).write_text("other")
    assert scale_of(model).own_content("base_model") == before


def test_content_is_read_once(model, monkeypatch):
    monkeypatch.setattr(inputs, "RECENT", -1e9)
    first = inputs.content_params(inputs.model_files(model))
    read = []
    monkeypatch.setattr(inputs, "sha256", lambda path: read.append(path.name) or "0" * 64)
    assert inputs.content_params(inputs.model_files(model)) == first and read == []
    (model / "tokenizer.json").write_text("nosj.rezinekot")
    assert inputs.content_params(inputs.model_files(model)) != first and read == ["tokenizer.json"]
    inputs.KEPT.write_text("[broken")
    read.clear()
    inputs.content_params(inputs.model_files(model))
    assert len(read) == len(FILES)


def test_a_tilde_is_the_users_home_in_every_path(model):
    (model.parent / "mine.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (model.parent / "t.yaml").write_text("student: '{question}'\nteacher: '{question} {answer}'\n")
    data = {"train": {"chain": None, "path": "~/mine.jsonl"}}
    scale = scale_of("~/model", data=data, task={"template": "~/t.yaml"})
    assert scale.config.model.pretrained == str(model) and len(scale.own_model()) == len(FILES)
    assert scale.own_files()[0] == str(model.parent / "mine.jsonl")
    assert str(model / "tokenizer.json") in scale.own_files()  # prompts are measured with it
    assert scale.config.task.template == str(model.parent / "t.yaml")
    assert resolve("~/mine.yaml") == scale.config
    code = scale.code("data")
    (model.parent / "t.yaml").write_text("student: '{question}!'\nteacher: '{question} {answer}'\n")
    from sdpg.provenance.sources import fingerprint

    fingerprint.cache_clear()
    changed = [old for old, new in zip(code, scale.code("data"), strict=True) if old != new]
    assert len(changed) == 1 and "t.yaml" in changed[0]


@pytest.mark.parametrize(
    ("pretrained", "expected"),
    [
        ("~/nowhere", r"model.pretrained: '.*/nowhere' does not exist \(looked in .*\); expected a Hugging Face checkpoint"),
        ("./" + "x" * 300, r"model.pretrained: '\./x+\.\.\.x+' does not exist"),
        ("~nobody-at-all/model", "does not exist"),
        ("model/config.json", "'model/config.json' is a file"),
        ("empty", "empty has no config.json"),
        ("weightless", r"weightless has no weights, only config.json; expected \*.safetensors"),
        ("model", None),
        ("owner/name", None),  # a hub id
    ],
)
def test_what_is_no_checkpoint_is_refused(model, pretrained, expected):
    (model.parent / "empty").mkdir()
    (model.parent / "weightless").mkdir()
    (model.parent / "weightless" / "config.json").write_bytes(WHOLE["config.json"])
    scale = scale_of(pretrained)
    if expected is None:
        scale.check()
        return
    with pytest.raises(ConfigError, match=expected) as error:
        scale.check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": b"{broken"}, "has a config.json that cannot be read: "),
        ({"config.json": b"[]"}, "has a config.json that is no JSON object but list"),
        ({"config.json": b'{"quantization_config": {"quant_method": "gptq"}}'}, r"is quantised \(gptq\)"),
        ({"config.json": b'{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}}'}, r"is quantised \(fp8\)"),
        ({"config.json": b'{"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": true}'}, "but T5For"),
        ({"config.json": b'{"architectures": ["BertForMaskedLM"]}'}, "is no causal language model but BertForMaskedLM"),
        ({"model.safetensors": b""}, "model.safetensors of 0 bytes that is not a whole safetensors file"),
        ({"model.safetensors": (9).to_bytes(8, "little") + b"{}"}, "not a whole safetensors file"),
        ({"model.safetensors": (2**60).to_bytes(8, "little") + b"{}"}, "not a whole safetensors file"),
        ({"model.safetensors": WHOLE["model.safetensors"] + b"left"}, "of 14 bytes that is not a whole"),
        ({"model.safetensors": None, "pytorch_model.bin": b"pickle"}, "pickled weights only, which are never loaded"),
        ({"tokenizer.json": None}, "has no tokenizer; expected tokenizer.json"),
        ({"config.json": None, "adapter_config.json": b"{}"}, r"is an adapter \(LoRA\), no model; merge it"),
        ({"config.json": b'{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'}, None),
    ],
)
def test_a_checkpoint_that_cannot_be_trained_is_refused_by_what_its_files_say(model, files, expected):
    for name, content in files.items():
        (model / name).unlink(missing_ok=True)
        if content is not None:
            (model / name).write_bytes(content)
    if expected is None:
        scale_of(model).check()
        return
    with pytest.raises(ConfigError, match=rf"model.pretrained: {model} .*{expected}") as error:
        scale_of(model).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["results", "results/mine", "results/mine/data", "results/mine/figures", "results/mine/logs"])
def test_a_file_where_results_are_to_lie_is_refused(model, place):
    (model.parent / place).parent.mkdir(parents=True, exist_ok=True)
    (model.parent / place).write_text("")
    with pytest.raises(OSError, match=f"This is a file, and a folder is to be here; move it away: '.*{place}'"):
        scale_of(model).check()
