"""Who may call the service, for what, and how often."""
