"""The parts of benchmarks/gpu_check.py, a file for each group of checks, and what they share."""
