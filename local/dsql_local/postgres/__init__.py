"""The PostgreSQL underneath: binaries, data folder, process, connections."""
