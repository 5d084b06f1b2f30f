"""The engine `loop`: source, stage and sink part driven by plain Python, without a package of its own."""
