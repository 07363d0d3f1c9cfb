"""What every optimizer shares, whatever framework its arrays are of: settings, groups, points ahead, saved files."""
