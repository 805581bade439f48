"""Acoustic scenes: CP-Mobile, RepMobile and audio transformers."""
