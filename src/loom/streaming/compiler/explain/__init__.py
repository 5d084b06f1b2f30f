"""A plan for people and tools: as text, as a picture, as data. One file per format; none holds a secret."""
