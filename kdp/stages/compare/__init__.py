"""Comparing networks."""
