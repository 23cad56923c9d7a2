"""The client-facing API: Amazon SQS, operations, models, codecs, errors, signatures. It knows queues only as a ``Backend``."""
