"""Departures from New York City in February 2013, and what a flow can make of them. `README.md` describes the data."""
