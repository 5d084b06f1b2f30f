"""What an author writes down."""

from loom.core.model import LoomFrozenStruct


class Every(LoomFrozenStruct):
    """Let every n-th record through, and drop those between."""

    n: int
    name: str | None = None
