"""The HTTP/1.1 server of the SQS endpoint: ``reader`` (bytes to requests), ``connection``, ``server``.

It knows nothing of SQS: an ``Application`` (see ``server``) answers.
"""
