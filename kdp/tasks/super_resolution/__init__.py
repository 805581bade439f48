"""Image super-resolution: CATANet."""
