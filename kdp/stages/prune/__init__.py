"""Pruning: search, rebuild, rounds."""
