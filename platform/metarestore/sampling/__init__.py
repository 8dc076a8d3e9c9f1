"""Drawn pairs as files: LR and HR images, and a text file of parameters from which they can be recreated."""
