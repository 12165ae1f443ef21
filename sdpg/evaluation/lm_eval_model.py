"""lm-eval's own vLLM wrapper around an engine that already runs. Import it inside `vllm_version_shim()` only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from unittest.mock import patch

from lm_eval.models import vllm_causallms

ALL_AT_ONCE = 2**20  # requests handed to vLLM together; lm-eval's "auto" does the same but adds a second progress bar


class EngineLM(vllm_causallms.VLLM):
    """lm-eval's VLLM model on an engine that has `llm`; three seconds instead of a second engine.

    prompts: context text -> token ids. These contexts are sent as exactly these ids, whatever the tokenizer would add or merge.
    encode: text -> token ids of any other context, with what belongs before a prompt (one BOS), and nothing behind it.
    """

    def __init__(self, engine, prompts: Mapping[str, list[int]], encode: Callable[[str], list[int]]):
        with patch.object(vllm_causallms, "LLM", lambda **_: engine.llm):  # all of its set-up, but no new engine
            super().__init__(
                pretrained=engine.model_dir, dtype=engine.dtype, max_model_len=engine.max_len, batch_size=ALL_AT_ONCE
            )
        self._prompts, self._encode = dict(prompts), encode

    def generate_until(self, requests, disable_tqdm=False):
        """Do as lm-eval's, with a progress bar on a terminal only."""
        return super().generate_until(requests, disable_tqdm or not sys.stderr.isatty())

    def loglikelihood(self, requests, disable_tqdm=False):
        """Do as lm-eval's, with a progress bar on a terminal only."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        """Return token ids of one text or of a list of texts; those of a known prompt are not computed but looked up."""
        if isinstance(string, str):
            if string in self._prompts:
                return list(self._prompts[string])
            if not string or add_special_tokens is False:
                return super().tok_encode(string, add_special_tokens, **kwargs)
            return self._encode(string)
        return [self.tok_encode(text, add_special_tokens, **kwargs) for text in string]

    def _model_generate(self, requests, generate=False, sampling_params=None):
        """Do as lm-eval's, but the text of a response that was cut off is emptied: for the verifier it must count as wrong."""
        outputs = super()._model_generate(requests, generate=generate, sampling_params=sampling_params)
        if generate:
            for output in outputs:
                for completion in output.outputs:
                    if completion.finish_reason == "length":
                        completion.text = ""
        return outputs
