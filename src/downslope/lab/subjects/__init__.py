"""What rules are raced on: a problem, a model of the user's own, a training of the user's own; each in one file."""
