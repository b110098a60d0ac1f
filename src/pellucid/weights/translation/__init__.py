"""Names and layouts of other code bases, translated to ours: one module for each network, found by its name."""
