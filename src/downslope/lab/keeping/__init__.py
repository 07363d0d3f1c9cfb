"""What is finished of a race, kept in a folder: how it is named, written and read, and who trains only the rest."""
