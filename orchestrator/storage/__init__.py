"""Rows: the tables, and a store per noun."""
