"""`LocalDsql`, the interface for Python programs, and the cluster that it runs."""
