"""The way of the data: dumps -> threads -> pairs -> adapters -> evidence -> feedback."""
