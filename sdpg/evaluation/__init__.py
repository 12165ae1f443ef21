"""Evaluation of checkpoints: the sweep with an engine (sampling), lm-eval (lm_eval_bridge) and the estimators (numpy only)."""
