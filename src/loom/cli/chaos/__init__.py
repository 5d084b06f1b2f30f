"""`loom demo --chaos`: the demo's flow is killed at random, and books are kept of every record."""
