"""The schema `sys`, and other differences of DSQL's catalog, as SQL that runs once when the template is initialized.

A job is a row of `sys._jobs`. CREATE INDEX ASYNC creates an index that is neither valid, ready nor unique; its job rebuilds it.
If its keys are not unique, the index stays invalid but rejects new duplicates until it is dropped, as on a cluster.
Functions whose names start with `_` are internal. `engine.jobs` decides when jobs run.
"""

from ..rules.quoting import quote_literal
from ..rules.rulebook import SHOWN

__all__ = ["SETTINGS", "SETUP"]

KEPT = "30 minutes"  # how long a finished job stays listed

SETTINGS = f"""
default_text_search_config = '{SHOWN["default_text_search_config"]}'
dsql.enable_batched_nestloop = on
"""

# Paragraphs separate statements.
SETUP = f"""
CREATE SCHEMA sys

GRANT USAGE ON SCHEMA sys TO PUBLIC

CREATE TABLE sys._jobs (number bigint GENERATED ALWAYS AS IDENTITY, job_id text PRIMARY KEY, status text NOT NULL, details text,
    job_type text NOT NULL, class_id oid, object_id oid, object_name text, start_time timestamptz(0) NOT NULL,
    update_time timestamptz(0))

CREATE VIEW sys.jobs AS SELECT job_id, status, details, job_type, class_id, object_id, object_name, start_time, update_time
    FROM sys._jobs WHERE status IN ('submitted', 'processing') OR update_time > clock_timestamp() - interval '{KEPT}'

GRANT SELECT ON sys.jobs TO PUBLIC

CREATE FUNCTION sys._submit(job text, type text, class oid, object oid, name text) RETURNS text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO sys._jobs (job_id, status, job_type, class_id, object_id, object_name, start_time, update_time)
    SELECT job, CASE WHEN object IS NULL THEN 'completed' ELSE 'submitted' END, type, class, object, name, now,
        CASE WHEN object IS NULL THEN now END FROM clock_timestamp() AS now RETURNING job_id $$

CREATE FUNCTION sys._list(job text, type text, class oid, object oid, name text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO sys._jobs (job_id, status, job_type, class_id, object_id, object_name, start_time, update_time)
    SELECT job, 'completed', type, class, object, name, now, now FROM clock_timestamp() AS now $$

CREATE FUNCTION sys._set_flags(index oid, is_unique boolean, is_ready boolean) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    UPDATE pg_index SET indisunique = is_unique, indisready = is_ready, indisvalid = false WHERE indexrelid = index $$

CREATE FUNCTION sys._create_index(job text, statement text, is_unique boolean) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE newest oid; made record;
    BEGIN
        SELECT max(oid) INTO newest FROM pg_catalog.pg_class;
        EXECUTE statement;
        SELECT c.oid, n.nspname || '.' || c.relname AS name INTO made
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'i' AND c.oid > newest ORDER BY c.oid DESC LIMIT 1;
        PERFORM sys._set_flags(made.oid, is_unique, false);
        RETURN sys._submit(job, 'INDEX_BUILD', 1259, made.oid, made.name);
    END $$

CREATE FUNCTION sys._validate(job text, written text, name text, missing_ok boolean) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE relation oid := pg_catalog.to_regclass(written); found record; folded text := (pg_catalog.parse_ident(name))[1];
    BEGIN
        IF relation IS NULL AND missing_ok THEN
            RAISE NOTICE 'relation "%" does not exist, skipping', written;
            RETURN sys._submit(job, 'VALIDATE_CONSTRAINT', 2606, NULL, NULL);
        END IF;
        SELECT c.oid, c.contype, r.relname, r.relowner, n.nspname || '.' || c.conname AS name INTO found
            FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
            LEFT JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid AND c.conname = folded
            WHERE r.oid = written::pg_catalog.regclass;
        IF NOT pg_catalog.pg_has_role(found.relowner, 'USAGE') THEN
            RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('must be owner of table %s', found.relname);
        ELSIF found.oid IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '42704',
                MESSAGE = format('constraint "%s" of relation "%s" does not exist', folded, found.relname);
        ELSIF found.contype NOT IN ('c', 'f') THEN
            RAISE EXCEPTION USING ERRCODE = '42809', MESSAGE =
                format('constraint "%s" of relation "%s" is not a foreign key or check constraint', folded, found.relname);
        END IF;
        RETURN sys._submit(job, 'VALIDATE_CONSTRAINT', 2606, found.oid, found.name);
    END $$

CREATE FUNCTION sys._begin_job() RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE sys._jobs SET status = 'processing', update_time = clock_timestamp()
    WHERE job_id = (SELECT job_id FROM sys._jobs WHERE status = 'submitted' ORDER BY number LIMIT 1) RETURNING job_id $$

CREATE FUNCTION sys._do_job(job text) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE task sys._jobs; outcome text := 'completed'; complaint text;
    BEGIN
        SELECT * INTO task FROM sys._jobs WHERE job_id = job;
        BEGIN
            IF NOT EXISTS (SELECT oid FROM pg_class WHERE oid = task.object_id
                    UNION ALL SELECT oid FROM pg_constraint WHERE oid = task.object_id) THEN
                outcome := 'cancelled';
            ELSIF task.job_type = 'INDEX_BUILD' THEN
                EXECUTE 'REINDEX INDEX ' || task.object_id::regclass;
            ELSE
                EXECUTE (SELECT format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname)
                    FROM pg_constraint WHERE oid = task.object_id);
            END IF;
        EXCEPTION
            WHEN unique_violation THEN
                outcome := 'failed';
                complaint := 'found duplicate key(s) while validating index uniqueness';
                PERFORM sys._set_flags(task.object_id, false, false);
                EXECUTE 'REINDEX INDEX ' || task.object_id::regclass;
                PERFORM sys._set_flags(task.object_id, true, true);
            WHEN others THEN
                outcome := 'failed';
                complaint := SQLERRM;
        END;
        UPDATE sys._jobs SET status = outcome, details = complaint, update_time = clock_timestamp() WHERE job_id = job;
    END $$

REVOKE EXECUTE ON FUNCTION sys._begin_job, sys._do_job FROM PUBLIC

CREATE FUNCTION sys._new_id() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', 1 + floor(random() * 32)::int, 1), '')
    FROM generate_series(1, 26) $$

CREATE FUNCTION sys._note_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        INSERT INTO sys._jobs (job_id, status, job_type, class_id, object_id, start_time, update_time)
            SELECT sys._new_id(), 'completed', 'DROP', classid, objid, clock_timestamp(), clock_timestamp()
            FROM pg_event_trigger_dropped_objects() WHERE original AND NOT is_temporary AND object_type IN ('table', 'index');
        PERFORM set_config('dsql.dropped', coalesce(jsonb_agg(jsonb_build_array(address_names[1], address_names[2])), '[]')::text,
            true) FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND object_type IN ('table', 'view', 'sequence',
            'index', 'function');
    END $$

CREATE EVENT TRIGGER dsql_jobs ON sql_drop EXECUTE FUNCTION sys._note_drop()

CREATE PROCEDURE sys.wait_for_job(job_id text, INOUT succeeded boolean DEFAULT NULL) LANGUAGE plpgsql AS $$
    DECLARE state text;
    BEGIN
        IF job_id !~ '^[a-z2-7]{{26}}$' THEN
            RAISE EXCEPTION USING ERRCODE = '22P02', MESSAGE = 'Unable to convert text to UUID';
        END IF;
        SELECT j.status INTO state FROM sys.jobs j WHERE j.job_id = wait_for_job.job_id;
        IF state IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = format('job "%s" does not exist', job_id);
        ELSIF state IN ('submitted', 'processing') THEN
            RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE =
                format('job "%s" is not done in the snapshot of this transaction', job_id);
        END IF;
        succeeded := state = 'completed';
    END $$

CREATE FUNCTION sys.current_session_id() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT md5(pid || ' ' || backend_start)::uuid::text FROM pg_stat_get_activity(pg_backend_pid()) $$

CREATE PROCEDURE sys._analyze(statement text, tables text[]) LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE statement;
        IF pg_catalog.current_setting('transaction_read_only') = 'off' THEN
            PERFORM sys._list(sys._new_id(), 'ANALYZE', 1259, c.oid, n.nspname || '.' || c.relname)
                FROM pg_catalog.unnest(tables) AS named (name)
                JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(named.name)
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE pg_catalog.pg_has_role(c.relowner, 'USAGE');
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
    AS $$ SELECT {quote_literal(SHOWN["version"])}::text $$

CREATE FUNCTION sys._setting(text, boolean) RETURNS text LANGUAGE internal STABLE STRICT PARALLEL SAFE
    AS 'show_config_by_name_missing_ok'

CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text, boolean) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT CASE lower($1) WHEN 'server_version' THEN {quote_literal(SHOWN["server_version"])}
        WHEN 'server_version_num' THEN {quote_literal(SHOWN["server_version_num"])} ELSE sys._setting($1, $2) END $$

CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT pg_catalog.current_setting($1, false) $$

DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT cfgname FROM pg_ts_config WHERE cfgname <> 'simple' LOOP
        EXECUTE format('DROP TEXT SEARCH CONFIGURATION pg_catalog.%I', name);
    END LOOP; END $$
"""
