"""What people look at when they check pairs: a table, and a contact sheet."""
