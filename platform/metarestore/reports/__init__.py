"""What people look at: progress, tables, figures, contact sheets, the HTML report."""
