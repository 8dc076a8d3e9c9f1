"""The report of a study: tables, figures, live display, HTML."""
