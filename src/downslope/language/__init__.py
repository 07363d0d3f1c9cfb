"""What a formula says: the words it may use, how it is read, and what it is turned into before anything computes it."""
