"""kdp makes trained networks physically smaller and keeps them good."""

__version__ = "0.1.0"
