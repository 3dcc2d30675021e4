"""The PostgreSQL underneath: its binaries, its data folder, its process, connections to it."""
