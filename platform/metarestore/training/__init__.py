"""The outer loop: sampling, update, checkpoint and resume."""
