"""The command line: `python -m dsql_local serve | status | psql | fault | invoke`."""
