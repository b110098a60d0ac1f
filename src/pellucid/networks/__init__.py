"""One file a network: the paper, the layers, the recipes, and its own loss where only it needs one."""
