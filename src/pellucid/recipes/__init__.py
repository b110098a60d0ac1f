"""Recipes: everything that a published result depends on, as a value; and how to find one by its name."""
