"""How long a test waits for what comes, at most: a busy machine is slow, and no test says how fast a thing is."""

PATIENCE = 100.0
