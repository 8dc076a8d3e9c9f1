"""Task distributions as contact sheets, strips, galleries and tables."""
