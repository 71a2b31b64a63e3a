"""Makes each broker agree with the database: its configuration, its process, what it retains."""
