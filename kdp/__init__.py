"""Compress trained neural networks by structured pruning and knowledge distillation."""

__version__ = "0.2.0"
