"""Benchmark and reproduction suite for Self-Distilled Policy Gradient (arXiv 2606.04036v1)."""
