"Alembic's folder: how the tables of `core.schema` came to be what they are."
