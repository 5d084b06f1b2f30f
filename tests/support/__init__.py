"""What the tests and benchmarks share: a real broker, readers and writers of numbered records, flows as processes."""
