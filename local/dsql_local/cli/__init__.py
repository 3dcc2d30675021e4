"""The commands: `python -m dsql_local serve | status | psql | fault | invoke`."""
