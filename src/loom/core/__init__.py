"""The kernel: models, errors, config, observability. It knows nothing of streams."""
