"""The fused head: from hidden states to per-token signals and gradients, one chunk of logits at a time."""
