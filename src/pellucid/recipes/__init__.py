"""Recipes: everything that makes one published result, as a value, and how to find one by name."""
