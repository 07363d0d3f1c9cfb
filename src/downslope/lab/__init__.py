"""Races between update rules on real networks and real data."""
