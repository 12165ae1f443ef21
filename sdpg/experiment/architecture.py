"""Sizes of a model, known before it is loaded: from a checkpoint's config.json, the hub's cache or config/models.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdpg.config import Config
from sdpg.config.files import nearest, read_mapping
from sdpg.config.settings import Model, WarmStart
from sdpg.io import ROOT, path_of, read_json

TABLE = ROOT / "config" / "models.yaml"
CHARACTERS = 23  # entries of the tiny models' vocabulary (sdpg/tasks/tokenizer.py, which loads transformers)
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder of Llama's kind: RMSNorm, grouped-query attention, gated feed-forward layers. Sizes in numbers of weights.

    q, kv: width of all queries, and of all keys (as of all values). biases: of one layer. qk_norm: queries and keys are
    normalised per head, as in Qwen3.
    """

    name: str
    hidden: int
    layers: int
    q: int
    kv: int
    feed_forward: int
    vocabulary: int
    tied: bool
    head_dim: int
    biases: int = 0
    qk_norm: bool = False

    @property
    def linear(self) -> int:
        """Weights of one layer's matrices."""
        return self.hidden * (2 * self.q + 2 * self.kv + 3 * self.feed_forward)

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return self.linear + self.biases + 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def body(self) -> int:
        """Weights of all layers' matrices, which multiply every token."""
        return self.layers * self.linear

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the lm-head."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        return self.embedding * (1 if self.tied else 2) + self.layers * self.layer + self.hidden

    @property
    def adapter_inputs_and_outputs(self) -> int:
        """Widths in and out, summed over the matrices of the body: the weights of adapters of rank 1."""
        of_layer = 2 * (self.hidden + self.q) + 2 * (self.hidden + self.kv) + 3 * (self.hidden + self.feed_forward)
        return self.layers * of_layer


def architecture(config: Config) -> Architecture:
    """Return the sizes of a scale's model. Nothing is loaded or fetched. Raises ValueError for one that is not at hand."""
    model: Model = config.model
    if model.warm_start:
        return of_warm_start(model.warm_start)
    if model.package:
        return _from_table(model.package.gguf)
    return _pretrained(model.pretrained)


def of_warm_start(settings: WarmStart) -> Architecture:
    """Return the sizes of the tiny model that the DAG makes."""
    width = settings.heads * settings.head_dim
    return Architecture(
        name="tiny Qwen3",
        hidden=settings.hidden_size,
        layers=settings.layers,
        q=width,
        kv=width,
        feed_forward=settings.intermediate_size,
        vocabulary=CHARACTERS,
        tied=True,
        head_dim=settings.head_dim,
        qk_norm=True,
    )


def of_config(values: Mapping[str, Any], name: str) -> Architecture:
    """Return the sizes that a config.json gives; `name` is the model's, for messages.

    Raises ValueError for a model that is not of Llama's kind: sizes by other names, or experts.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: its config.json holds a {type(values).__name__}, expected an object with {', '.join(SIZES)}")
    inner = values.get("text_config") or {}
    if isinstance(inner, Mapping):
        values = {**values, **inner}
    missing = [key for key in SIZES if not _is_size(values.get(key))]
    missing += [key for key in ("head_dim", "num_key_value_heads") if values.get(key) and not _is_size(values[key])]
    missing += [] if isinstance(inner, Mapping) else ["text_config"]
    experts = next((key for key in values if "experts" in key), None)
    if missing or experts:
        wrong = [f"{key}={values[key]!r}" if key in values else f"no {key}" for key in missing]
        got = wrong[0] if missing else experts
        raise ValueError(
            f"{name}: its config.json has {got}; expected a dense decoder with {', '.join(SIZES)}: `sdpg plan` cannot size it"
        )
    heads, kind = values["num_attention_heads"], values.get("model_type", "")
    head_dim = values.get("head_dim") or values["hidden_size"] // heads
    q, kv = heads * head_dim, (values.get("num_key_value_heads") or heads) * head_dim
    hidden, feed_forward = values["hidden_size"], values["intermediate_size"]
    biases = 0
    if kind == "qwen2" or values.get("attention_bias"):
        biases += q + 2 * kv + (0 if kind == "qwen2" else hidden)
    if values.get("mlp_bias"):
        biases += 2 * feed_forward + hidden
    return Architecture(
        name=name,
        hidden=hidden,
        layers=values["num_hidden_layers"],
        q=q,
        kv=kv,
        feed_forward=feed_forward,
        vocabulary=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", kind.startswith("gemma"))),
        head_dim=head_dim,
        biases=biases,
        qk_norm=kind.startswith("qwen3"),
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def layer_activations(model: Architecture, b: int, rank: int = 0) -> float:
    """Return bytes a token that one layer keeps for its backward pass; b: bytes of a number in the compute precision.

    Norms keep a float32 copy, what they made of it, and their result; keys and values are repeated to the queries' width. With
    adapters of a rank no frozen weight keeps its input; the seven adapters keep theirs, shared where it is one, and r numbers.
    """
    h, ff, normed = model.hidden, model.feed_forward, (model.q + model.kv) * model.qk_norm
    if not rank:
        return 2 * h * (4 + 2 * b) + normed * (4 + b) + 4 * b * model.q + 4 * b * ff
    return 4 * (2 * h + normed) + b * (2 * h + ff + 7 * rank) + 4 * b * model.q + 3 * b * ff


def activations(model: Architecture, b: int, tokens: int, checkpointing: bool, rank: int = 0) -> float:
    """Return bytes that a training forward pass keeps: all layers', or with checkpointing their inputs and one layer's."""
    kept = layer_activations(model, b, rank)
    body = model.layers * model.hidden * b + kept if checkpointing else model.layers * kept
    return tokens * (body + model.hidden * (4 + (1 if rank else 2) * b))  # the last norm


def _pretrained(name: str) -> Architecture:
    """Return the sizes of a local checkpoint, else of the hub's cached config.json, else of the table's entry."""
    folder = path_of(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"model directory {name} has no config.json; expected a Hugging Face checkpoint")
        return of_config(read_json(folder / "config.json"), folder.name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"model directory {name} does not exist (looked for {folder.absolute()})")
    from huggingface_hub import try_to_load_from_cache

    owner, _, revision = name.partition("@")
    cached = try_to_load_from_cache(owner, "config.json", revision=revision or None)
    return of_config(read_json(cached), owner) if isinstance(cached, str) else _from_table(owner)


def _from_table(name: str) -> Architecture:
    """Return the entry of config/models.yaml with this hub id; a GGUF file's is the one that its name begins with."""
    table = read_mapping(TABLE)
    for known, values in table.items():
        if name == known or (name.endswith(".gguf") and name.startswith(known.rpartition("/")[2])):
            return of_config(values, known)
    raise ValueError(
        f"the sizes of {name!r} are not known: it is neither a folder, nor in the hub's cache, nor in config/models.yaml "
        f"({nearest(name, table)}); add it there, or give a folder with its config.json"
    )
