"""One part of each sort for metarestore."""
