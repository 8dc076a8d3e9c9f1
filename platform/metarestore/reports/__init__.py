"""Output for users: progress displays, tables, figures, contact sheets, HTML reports."""
