"""Networks, and their parameters in memory and on disk."""
