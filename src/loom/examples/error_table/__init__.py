"""A sink of one's own: errors end in an SQLite table. `README.md` walks through it."""
