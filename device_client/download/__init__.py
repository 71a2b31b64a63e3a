"""Fetching what an offer names: verified, resumable, bounded in memory."""
