"""How the tables became what they are, one file a step; alembic runs them."""
