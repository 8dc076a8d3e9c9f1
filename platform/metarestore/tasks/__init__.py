"""Task distributions, tasks, and the images they are made of."""
