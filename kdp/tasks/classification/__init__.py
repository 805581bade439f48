"""Image classification: the face-mask networks."""
