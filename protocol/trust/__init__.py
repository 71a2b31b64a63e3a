"""What a receiver believes, and why: TUF over topics, floors, and the checks of an order."""
