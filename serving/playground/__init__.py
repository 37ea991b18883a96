"""The playground: a page at ``/`` on which a volunteer tries both models."""
