"""Learners: per-task losses, their gradients, adaptation, and what a process needs to compute them."""
