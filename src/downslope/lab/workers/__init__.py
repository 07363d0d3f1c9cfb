"""Races that other processes train: what they are sent, the engine that sends it, and the processes of this machine."""
