"""Who may do what: signatures, access keys, permissions, policies and limits per key. ``gate`` joins them."""
