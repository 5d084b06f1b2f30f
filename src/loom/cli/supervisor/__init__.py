"""`loom run` as the supervisor of one child process: starts the run again when it fails, within a policy."""
