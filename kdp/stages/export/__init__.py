"""Writing networks for other runtimes."""
