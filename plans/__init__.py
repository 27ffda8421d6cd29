"""Plans of the instrument: ordinary bluesky plans, which also run in a bare RunEngine."""
