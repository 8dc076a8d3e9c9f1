"""Configuration: YAML 1.2 files to checked, typed models."""
