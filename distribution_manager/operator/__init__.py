"""What operators see: metrics, logs, the admin API."""
