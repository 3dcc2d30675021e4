"""What clients connect to: TLS, startup, access tokens, limits on connections."""
