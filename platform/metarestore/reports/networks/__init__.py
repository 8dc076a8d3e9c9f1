"""Networks and descriptors as tables and figures."""
