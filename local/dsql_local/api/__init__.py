"""What a Python program uses: `LocalDsql`, and the cluster that it runs in a thread."""
