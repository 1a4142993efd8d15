"""Alembic's entry point: migrate on the connection, and in the transaction, that `open_index` hands over."""

from alembic import context

from node.index.tables import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
