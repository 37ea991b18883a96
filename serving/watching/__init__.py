"""What can be seen of the service from outside: metrics, traces, access log; never a word of what passed through."""
