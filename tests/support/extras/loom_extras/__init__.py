"""Things for Loom that are no part of it."""
