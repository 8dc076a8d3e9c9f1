"""Engines: run jobs in this process or on a Ray cluster."""
