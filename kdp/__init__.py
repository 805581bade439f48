"""Compress trained neural networks by structured pruning and knowledge distillation."""

import os

__version__ = "0.2.0"

MAX_PIXELS = 178_956_970
"""Of an image that is read, 540 MB decoded; Pillow refuses more by itself."""
# OpenCV reads this once, when it is imported. Its own limit stands for 3 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
