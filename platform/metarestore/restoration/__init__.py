"""Restores photographs as files: what they contain besides pixels, their formats, memory and colour."""
