"""Orders enriched with prices from an HTTP service: `loom run loom.examples.enrichment.flow:flow --config config.yaml`."""
