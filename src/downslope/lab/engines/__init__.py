"""What trains the runs of a race."""
