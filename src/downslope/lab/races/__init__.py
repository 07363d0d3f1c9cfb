"""A race: what is tuned and how, what came out, and what can be said of it."""
