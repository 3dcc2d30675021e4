"""DSQL's transactions on PostgreSQL: flights, optimistic concurrency, limits, jobs."""
