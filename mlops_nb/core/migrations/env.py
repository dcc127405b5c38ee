"How Alembic reaches the database: by the connection it is handed, in the transaction that is open there."
from alembic import context

from mlops_nb.core.schema import VERSION

given = context.config.attributes
context.configure(connection=given["connection"], target_metadata=given["metadata"], version_table=VERSION, render_as_batch=True)
with context.begin_transaction(): context.run_migrations()
