"""One module for each network: the paper, the layers, the recipes, and a loss that only this network uses."""
