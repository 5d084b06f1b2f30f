"""One file per family of nodes: how a declaration is compiled, and the form that the stages are built from."""
