"""Writes trained networks as files that other tools open."""
