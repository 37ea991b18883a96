"""How LLUMI is run: the ``llumi`` command, sessions, jobs."""
