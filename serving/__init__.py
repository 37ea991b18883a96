"""GM and IM behind HTTP."""
