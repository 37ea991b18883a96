"""What alembic executes around the steps: they run in the transaction, and under the lock, of ``migrate``."""

from alembic import context

from serving.feedback.tables import METADATA

# SQLite's DDL is transactional too, once transactions are begun by us and not by its driver.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
