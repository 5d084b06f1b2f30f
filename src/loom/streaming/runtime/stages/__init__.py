"""A plan's synchronous work as one batch function, made of closures. Nothing here knows the engine."""
