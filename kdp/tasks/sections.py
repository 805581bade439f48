"""Registers what every family adds to the configuration; see `kdp.config.registry`.

Importing this module imports the `section.py` of each family and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module

from kdp.tasks import FAMILIES

# Several networks share a family; the order decides in which order the keys are documented.
for package in dict.fromkeys(FAMILIES.values()):
    import_module(f"{package}.section")
