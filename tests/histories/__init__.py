"""Decisions of earlier engines, to be made again."""
