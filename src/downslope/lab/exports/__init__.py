"""A race for other tools: their files, written from it once it has ended."""
