"""Relations between synthetic and real distributions, and the gradient weights they give."""
