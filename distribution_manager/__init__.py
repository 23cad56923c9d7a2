"""The Distribution Manager: the proxy that clients speak SQS to. It holds no durable state."""
