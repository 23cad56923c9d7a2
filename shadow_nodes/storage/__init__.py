"""Where a node's replicas are kept: the store interface and its implementations."""
