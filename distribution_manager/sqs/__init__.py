"""The client-facing API, Amazon SQS: operations, models, codecs, errors. It knows queues only as a ``Backend``."""
