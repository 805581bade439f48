"""Fuzz and crash tests: mutated inputs and killed runs, through the real command line.

`pytest tests/robustness` runs a few cases of each kind, `--robustness=long` all of them, and
`python -m tests.robustness` chosen ones. A case is made from its kind, seed and number alone.
"""
