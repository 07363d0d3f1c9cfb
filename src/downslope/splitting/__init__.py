"""Which parameters of a network are its inner matrices, for rules such as Muon, and which are not."""
