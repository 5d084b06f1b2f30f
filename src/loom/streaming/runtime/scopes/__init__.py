"""Scopes at run time: resources that are opened and closed, and calls that are in progress together."""
