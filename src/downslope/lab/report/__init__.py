"""The report of a race: one page with pictures and tables."""
