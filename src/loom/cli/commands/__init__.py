"""The commands of `loom`: a file each, named like the command. Its `command` is the function that `loom` calls, and the whole
registration; other packages offer theirs as entry points of the group `loom.cli.commands`.
"""
