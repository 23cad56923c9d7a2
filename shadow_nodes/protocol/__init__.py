"""What managers and nodes say to each other. The only part of ``shadow_nodes`` that managers may import."""
