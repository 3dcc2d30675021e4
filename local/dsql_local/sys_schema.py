"""The schema `sys` and what else a cluster's catalog has of its own, as SQL that is run once when the template is made.

Jobs are done when they are asked for: an index is built inside the statement that asks, so `sys.jobs` shows them completed.
The functions whose names begin with `_` are called by the front alone.
"""

from .rules import SHOWN
from .syntax import literal

__all__ = ["SETTINGS", "SETUP"]

SETTINGS = f"""
default_text_search_config = '{SHOWN["default_text_search_config"]}'
"""

# One statement a paragraph.
SETUP = f"""
CREATE SCHEMA sys

GRANT USAGE ON SCHEMA sys TO PUBLIC

CREATE TABLE sys._jobs (job_id text PRIMARY KEY, status text NOT NULL, details text, job_type text NOT NULL,
    class_id oid, object_id oid, object_name text, start_time text NOT NULL, update_time text NOT NULL)

CREATE VIEW sys.jobs AS SELECT job_id, status, details, job_type, class_id, object_id, object_name, start_time, update_time
    FROM sys._jobs

GRANT SELECT ON sys.jobs TO PUBLIC

CREATE FUNCTION sys._note_job(job text, status text, details text, type text, class oid, object oid, name text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO sys._jobs SELECT job, status, details, type, class, object, name, now, now
    FROM to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS now
    ON CONFLICT (job_id) DO UPDATE SET status = excluded.status, details = excluded.details, update_time = excluded.update_time $$

CREATE FUNCTION sys._create_index(job text, statement text) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE newest oid; built record;
    BEGIN
        SELECT max(oid) INTO newest FROM pg_catalog.pg_class;
        EXECUTE statement;
        SELECT c.oid, n.nspname || '.' || c.relname AS name INTO built
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'i' AND c.oid > newest ORDER BY c.oid DESC LIMIT 1;
        PERFORM sys._note_job(job, 'completed', NULL, 'INDEX_BUILD', 1259, built.oid, built.name);
        RETURN job;
    EXCEPTION WHEN unique_violation THEN
        PERFORM sys._note_job(job, 'failed', 'found duplicate key(s) while validating index uniqueness',
            'INDEX_BUILD', 1259, NULL, NULL);
        RETURN job;
    END $$

CREATE FUNCTION sys._alter_table(job text, statement text) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE complaint text;
    BEGIN
        EXECUTE statement;
        PERFORM sys._note_job(job, 'completed', NULL, 'VALIDATE_CONSTRAINT', 2606, NULL, NULL);
        RETURN job;
    EXCEPTION WHEN check_violation OR foreign_key_violation THEN
        GET STACKED DIAGNOSTICS complaint = MESSAGE_TEXT;
        PERFORM sys._note_job(job, 'failed', complaint, 'VALIDATE_CONSTRAINT', 2606, NULL, NULL);
        RETURN job;
    END $$

CREATE PROCEDURE sys.wait_for_job(job_id text, INOUT succeeded boolean DEFAULT NULL) LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF job_id !~ '^[a-z2-7]{{26}}$' THEN
            RAISE EXCEPTION USING ERRCODE = '22P02', MESSAGE = 'Unable to convert text to UUID';
        END IF;
        SELECT j.status = 'completed' INTO succeeded FROM sys._jobs j WHERE j.job_id = wait_for_job.job_id;
        IF succeeded IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = format('job "%s" does not exist', job_id);
        END IF;
    END $$

CREATE SEQUENCE sys._iam_oids START 26000

CREATE TABLE sys._mappings (iam_oid oid NOT NULL DEFAULT nextval('sys._iam_oids')::oid, arn text NOT NULL, role oid NOT NULL,
    grantor oid NOT NULL, PRIMARY KEY (role, arn))

CREATE VIEW sys.iam_pg_role_mappings AS SELECT m.iam_oid, m.arn, r.oid AS pg_role_oid, r.rolname AS pg_role_name,
    m.grantor AS grantor_pg_role_oid, g.rolname AS grantor_pg_role_name
    FROM sys._mappings m JOIN pg_catalog.pg_roles r ON r.oid = m.role LEFT JOIN pg_catalog.pg_roles g ON g.oid = m.grantor

GRANT SELECT ON sys.iam_pg_role_mappings TO PUBLIC

CREATE PROCEDURE sys._iam_grant(name text, arn text) LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF arn !~ '^arn:aws[a-z-]*:(iam|sts)::[0-9]{{12}}:' THEN
            RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'IAM role must look like an IAM ARN';
        END IF;
        INSERT INTO sys._mappings (arn, role, grantor) VALUES (arn, quote_ident(name)::regrole, session_user::regrole)
            ON CONFLICT DO NOTHING;
    END $$

CREATE PROCEDURE sys._iam_revoke(name text, given text) LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        DELETE FROM sys._mappings m WHERE m.role = quote_ident(name)::regrole AND m.arn = given;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = format('IAM role %s does not exist', given);
        END IF;
    END $$

REVOKE EXECUTE ON PROCEDURE sys._iam_grant, sys._iam_revoke FROM PUBLIC

GRANT EXECUTE ON PROCEDURE sys._iam_grant, sys._iam_revoke TO admin

CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT {literal(SHOWN["version"])}::text $$

CREATE FUNCTION sys._setting(text, boolean) RETURNS text LANGUAGE internal STABLE STRICT PARALLEL SAFE
    AS 'show_config_by_name_missing_ok'

CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text, boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT CASE lower($1) WHEN 'server_version' THEN {literal(SHOWN["server_version"])}
        WHEN 'server_version_num' THEN {literal(SHOWN["server_version_num"])} ELSE sys._setting($1, $2) END $$

CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT pg_catalog.current_setting($1, false) $$

DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT cfgname FROM pg_ts_config WHERE cfgname <> 'simple' LOOP
        EXECUTE format('DROP TEXT SEARCH CONFIGURATION pg_catalog.%I', name);
    END LOOP; END $$
"""
