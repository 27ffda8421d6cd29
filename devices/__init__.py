"""Device classes of the instrument, for ophyd and ophyd-async."""
