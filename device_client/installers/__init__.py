"""Putting a release in place, switching to it, and going back."""
