"""Grids of configurations."""
