"""The tokenizer of the tiny models: one token per character, an ordinary PreTrainedTokenizerFast."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from sdpg.tasks.chain import ANSWER_MARK, DIGITS, OPERATORS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CHARACTERS = DIGITS + OPERATORS + "=?<[|]" + ANSWER_MARK


def character_tokenizer(characters: str = CHARACTERS, max_length: int = 512) -> PreTrainedTokenizerFast:
    """Return a tokenizer over single characters with <pad>, <eos> and <unk>; decode(encode(x)) == x for texts of these
    characters.

    No token is added to what is encoded. A character that it does not know becomes <unk>.
    """
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *characters])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
