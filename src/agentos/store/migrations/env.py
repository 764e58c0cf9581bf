"""Runs the migrations inside the transaction that `agentos.store.migrations` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
