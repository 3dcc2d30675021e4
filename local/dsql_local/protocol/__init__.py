"""PostgreSQL's wire protocol as values."""
