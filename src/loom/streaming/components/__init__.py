"""What the nodes do: one file per family, named like the file in `loom.streaming.nodes` that declares it. It holds how a
declaration is checked, its compiled form, and how a stage runs it.

`loom.streaming.compiler.registry` loads a file when its node is first met; nothing imports this package. `COMPONENTS` lists
what a file registers.
"""
