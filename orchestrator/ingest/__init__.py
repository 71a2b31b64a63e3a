"""What devices say, from the broker to rows: checked, ordered, written in batches."""
