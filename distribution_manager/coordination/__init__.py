"""The lock, registry and metadata interface: etcd in production (etcd.py), memory in tests and in the simulation."""
