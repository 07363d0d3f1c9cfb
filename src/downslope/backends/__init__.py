"""Memory and launch: no rule is named here, and nothing outside knows what an address is."""
