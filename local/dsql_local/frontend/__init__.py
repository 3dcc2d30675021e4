"""What a client connects to: TLS, IAM tokens, limits on connections, messages in and out."""
