"""KDSR descriptors of the degradation of photographs and tasks: computation, file format, and quality."""
