"""The audit, which nobody may change, and case work. Explained in indexer/audit_tables.py and case_tables.py."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0008"
down_revision = "0007"

NOW = sa.text("now()")

# OR REPLACE: functions outlive the tables when a backup is restored.
REFUSE = """
    CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% of % is refused: the audit is append-only', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END $$
"""
REFUSE_REWORDING = """
    CREATE OR REPLACE FUNCTION audit_refuse_rewording() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.seq <> OLD.seq OR NEW.reason IS NOT NULL THEN
            RAISE EXCEPTION 'a reason in the audit can only be blanked' USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END $$
"""
TRIGGERS = (
    "CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON audit_head"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_reason_stays BEFORE DELETE OR TRUNCATE ON audit_reason"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_reason_only_blanked BEFORE UPDATE ON audit_reason"
    " FOR EACH ROW EXECUTE FUNCTION audit_refuse_rewording()",
)


def upgrade() -> None:
    create_audit()
    create_cases()


def create_audit() -> None:
    op.create_table(
        "audit_event",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        _time("at", nullable=False),
        _text("actor_kind"),
        sa.Column("actor_id", sa.Uuid()),
        _text("actor_name"),
        _text("action"),
        _text("object_kind", nullable=True),
        _text("object_id", nullable=True),
        sa.Column("case_id", sa.Uuid()),
        _text("reason_digest", nullable=True),
        _text("checkpoint_id", nullable=True),
        sa.Column("detail", JSONB(), nullable=False),
        _text("previous"),
        _text("hash"),
    )
    for column in ("at", "actor_name", "action"):
        op.create_index(f"audit_event_{column}_idx", "audit_event", [column])
    for column in ("case_id", "object_id"):
        given = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"audit_event_{column}_idx", "audit_event", [column], postgresql_where=given)
    op.create_table(
        "audit_reason",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        _text("salt", nullable=True),
        _text("reason", nullable=True),
        sa.ForeignKeyConstraint(["seq"], ["audit_event.seq"], name="audit_reason_seq_fkey"),
        _check("audit_reason_both_check", "(salt IS NULL) = (reason IS NULL)"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        _text("hash"),
        _check("audit_head_single_check", "id = 1"),
    )
    for statement in (REFUSE, REFUSE_REWORDING, *TRIGGERS):
        op.execute(statement)


def create_cases() -> None:
    op.create_table(
        "case_file",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _text("title"),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        *_person(),
        _time("created_at", nullable=False, server_default=NOW),
        _time("closed_at"),
        _check("case_file_state_check", "state IN ('open', 'closed')"),
    )
    op.create_table(
        "case_member",
        _case(),
        *_person(),
        _time("added_at", nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("case_id", "person_id", name="case_member_pkey"),
        _of_case("case_member"),
    )
    op.create_index("case_member_person_id_idx", "case_member", ["person_id"])
    op.create_table(
        "case_search",
        _case(),
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        _text("checkpoint_id"),
        _time("ran_at", nullable=False),
        sa.PrimaryKeyConstraint("case_id", "search_id", name="case_search_pkey"),
        _of_case("case_search"),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name="case_search_checkpoint_id_fkey"),
    )
    op.create_index("case_search_search_id_idx", "case_search", ["search_id"])
    op.create_table(
        "case_item",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _case(),
        sa.Column("image_id", sa.Uuid()),
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("similarity", sa.Double()),
        _text("band", nullable=True),
        _text("checkpoint_id"),
        _text("note", nullable=True),
        *_person(),
        _time("added_at", nullable=False, server_default=NOW),
        _time("erased_at"),
        _of_case("case_item"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="case_item_image_id_fkey", ondelete="SET NULL"),
        sa.UniqueConstraint("case_id", "image_id", name="case_item_case_id_key"),
    )
    op.create_index("case_item_image_id_idx", "case_item", ["image_id"])
    op.create_table(
        "case_note",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _case(),
        _text("note"),
        *_person(),
        _time("created_at", nullable=False, server_default=NOW),
        _of_case("case_note"),
    )
    op.create_index("case_note_case_id_idx", "case_note", ["case_id", "id"])
    op.create_table(
        "verdict",
        sa.Column("search_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=False),
        _text("person_kind"),
        _text("person_name"),
        _text("verdict"),
        _text("note", nullable=True),
        _time("at", nullable=False),
        sa.PrimaryKeyConstraint("search_id", "image_id", "person_id", name="verdict_pkey"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="verdict_image_id_fkey", ondelete="CASCADE"),
        _check("verdict_verdict_check", "verdict IN ('match', 'no_match', 'unsure')"),
    )
    op.create_index("verdict_image_id_idx", "verdict", ["image_id"])
    op.create_table(
        "case_export",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _case(),
        sa.Column("state", sa.Text(), server_default=sa.text("'building'"), nullable=False),
        *_person(),
        sa.Column("image_ids", ARRAY(sa.Uuid()), nullable=False),
        sa.Column("byte_size", sa.BigInteger()),
        _text("sha256", nullable=True),
        _time("created_at", nullable=False, server_default=NOW),
        _time("expires_at", nullable=False),
        _of_case("case_export"),
        _check("case_export_state_check", "state IN ('building', 'ready')"),
    )
    op.create_index("case_export_expires_at_idx", "case_export", ["expires_at"])
    op.create_index("case_export_image_ids_idx", "case_export", ["image_ids"], postgresql_using="gin")


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _time(name: str, *, nullable: bool = True, server_default: Any = None) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=server_default)


def _person() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return sa.Column("person_id", sa.Uuid(), nullable=False), _text("person_name")


def _case() -> sa.Column[Any]:
    return sa.Column("case_id", sa.Uuid(), nullable=False)


def _of_case(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["case_id"], ["case_file.id"], name=f"{table}_case_id_fkey")


def _check(name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(name))  # op.f: the name as it is, not put through the convention
