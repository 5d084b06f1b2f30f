"""What a run measures beside its counters, and how all of it is read as metrics. Off unless an observer serves metrics."""
