"""Callbacks on documents: scan points and live analysis, in a service or subscribed to a bare RunEngine."""
