"The next revision of the database, from what changed in nbs/core/schema.ipynb. Usage: revision.py 'a run says what it cost'"
import sys

import sqlalchemy as sa
from alembic import command

from mlops_nb.core import schema

@sa.event.listens_for(sa.Table, "column_reflect")
def exact(inspector, table, column):
    "SQLite tells `DOUBLE PRECISION` as REAL, which has half the digits on Postgres."
    if isinstance(column["type"], sa.REAL): column["type"] = sa.DOUBLE_PRECISION()

def drawn():
    "The tables as this code makes them afresh, for Alembic to compare with."
    with sa.create_engine("sqlite://").connect() as c:
        for statement in schema.statements(True): c.exec_driver_sql(statement)
        found = sa.MetaData()
        found.reflect(c, only=lambda name, _: name != schema.VERSION)
    return found

def main(why=""):
    if not why: return 'say what changes, for example: make revision WHY="a run says what it cost"'
    with sa.create_engine("sqlite://").begin() as c:
        schema.upgrade(c)   # by the revisions that are there
        command.revision(schema.config(c, drawn()), why, autogenerate=True, rev_id=f"{int(schema.revisions()[-1]) + 1:04}")

if __name__ == "__main__": sys.exit(main(*sys.argv[1:]))
