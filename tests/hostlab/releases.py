"""Owns other releases of MedForge's source tree, made inside the virtual host: a later one, and one that cannot serve."""

from __future__ import annotations

from tests.hostlab.host import SOURCE, Host

MIGRATION = '''
"""A later release's schema."""
import sqlalchemy as sa
from alembic import op
revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
def upgrade() -> None:
    op.create_table("lab_{revision}", sa.Column("id", sa.Integer, primary_key=True))
def downgrade() -> None:
    op.drop_table("lab_{revision}")
'''


# In the place of its serving: the schema is brought up to date, and the program ends.
ENDS = r'    import asyncio as lab\n    lab.run(prepare(settings))\n    raise SystemExit("this release cannot serve")'
# Where each program has its migrations, what their files begin with, and the last revision of this release.
MIGRATIONS = (
    ("medforged/adapters/sqlite/migrations/versions", "m", "0002"),
    ("facade/store/migrations/versions", "", "0003"),
)


def make(host: Host, folder: str, version: str, *, migrations: int, facade_ends: bool = False) -> str:
    """A source tree of this version, whose schemas are so many migrations further, the daemon's and the facade's.

    `facade_ends`: its facade migrates, and ends before it serves.
    """
    host.run(f"rm -rf {folder} && cp -r {SOURCE} {folder}")
    host.run(f"sed -i 's/^__version__ = .*/__version__ = \"{version}\"/' {folder}/medforged/__init__.py")
    added = [f"9{number}00" for number in range(migrations)]
    for home, prefix, last in MIGRATIONS:
        for revision, before in zip(added, [last, *added], strict=False):
            text = MIGRATION.lstrip().format(revision=revision, before=before)
            host.put(text, f"{folder}/{home}/{prefix}{revision}_lab.py")
    if facade_ends:
        begins = "def run(settings: Settings) -> int:"
        host.run(f"sed -i 's/^{begins}/{begins}\\n{ENDS}/' {folder}/facade/app.py")
    return folder
