"""The training core that every method shares. It knows `algorithms.base` and no method by name."""
