"""The benchmarks: every loop that is installed, side by side. Run ``python -m benchmarks``."""
