"""The tables. Records are kept whole as JSON text; the columns beside it are for queries."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created_at", sa.String(40), nullable=False, index=True),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("spec_hash", sa.String(64), nullable=False, index=True),
    sa.Column("environment", sa.String(64), sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

environments = sa.Table(
    "environments",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)
"""Machines and software, by content hash: many runs share one."""

run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
)
"""What happened to a run; the newest event is its state."""

blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("block", sa.Integer, primary_key=True),
    sa.Column("solution", sa.String(200), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

samples = sa.Table(
    "samples",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("solution", sa.String(200), primary_key=True),
    sa.Column("problem_id", sa.String(200), primary_key=True),
    sa.Column("sample", sa.Integer, primary_key=True),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("solved", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

readings = sa.Table(
    "readings",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("block", sa.Integer, primary_key=True),
    sa.Column("stage", sa.String(16), primary_key=True),
    sa.Column("quantity", sa.String(32), primary_key=True),
    sa.Column("component", sa.String(16), primary_key=True),
    sa.Column("low", sa.Float),
    sa.Column("value", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
)
"""Every quantity of every window; where nothing was measured the numbers are NULL, the method is
``missing`` and ``source`` says why."""

factors = sa.Table(
    "factors",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("grid", sa.String(16), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)
"""The factors a run was first priced with; re-pricing reads the run, not these."""

migrations = sa.Table(
    "lichen_migrations",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("applied_at", sa.String(40), nullable=False),
)
