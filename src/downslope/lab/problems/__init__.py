"""What a race is run on: data, networks and budgets, those that come with downslope and those of a table."""
