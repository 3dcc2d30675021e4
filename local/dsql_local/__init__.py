"""A local Aurora DSQL: real PostgreSQL behind the front that a cluster shows."""
