"""Recorded experiments."""
