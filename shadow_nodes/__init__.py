"""The shadow node: a server that holds replicas of shards. It knows nothing of managers."""
