"The next revision of the database, from what changed in nbs/core/schema.ipynb. Usage: revision.py 'a run says what it cost'"
import sys

import sqlalchemy as sa
from alembic import command

from mlops_nb.core import schema

def drawn():
    "The tables as this code makes them afresh, for Alembic to compare with."
    with sa.create_engine("sqlite://").connect() as c:
        for statement in schema.statements(True): c.exec_driver_sql(statement)
        found = sa.MetaData()
        found.reflect(c, only=lambda name, _: name != schema.VERSION)
    return found

def main(why):
    with sa.create_engine("sqlite://").begin() as c:
        schema.upgrade(c)   # by the revisions that are there
        command.revision(schema.config(c, drawn()), why, autogenerate=True, rev_id=f"{int(schema.revisions()[-1]) + 1:04}")

if __name__ == "__main__": main(*sys.argv[1:])
