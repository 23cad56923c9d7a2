"""The manager's links: to nodes, to and from other managers; and names to addresses."""
