"""Loom: typed flows, compiled before they run. The streaming package is `loom.streaming`."""
