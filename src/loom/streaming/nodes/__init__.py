"""What an author can write down, one file per kind of node."""
