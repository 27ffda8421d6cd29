"""The process that runs scripts and functions, one after the other, beside the workers and harming none of them.

`python -m bec_bluesky.scan_server.task_process --fd N` speaks the workers' frames on the socket N.
"""

__all__: list[str] = []
