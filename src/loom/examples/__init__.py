"""Flows that run as they are, with the data they need."""
