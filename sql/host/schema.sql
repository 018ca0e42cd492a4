-- The schema is created here and without IF NOT EXISTS: one that somebody made beforehand is an error.
CREATE SCHEMA sea_mq;
COMMENT ON SCHEMA sea_mq IS 'sea_mq: transactional messaging over NATS JetStream';
CREATE SCHEMA sea_mq_inside;
COMMENT ON SCHEMA sea_mq_inside IS 'What functions of sea_mq do as the extension''s owner; nobody else has a right on it';

CREATE FUNCTION sea_mq.library_version() RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'library_version_wrapper';
COMMENT ON FUNCTION sea_mq.library_version IS
'Version of the library that this session has loaded. The version of the SQL is in pg_extension; sea_mq.problems says when they differ';

CREATE FUNCTION sea_mq.check_library() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- While a script runs, this is the version that it leads to.
    needed text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq');
BEGIN
    IF string_to_array(sea_mq.library_version(), '.')::integer[] < string_to_array(needed, '.')::integer[] THEN
        RAISE EXCEPTION 'the SQL is of version % and the library of version %', needed, sea_mq.library_version()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Install version %s of the library (the package of this server''s major), restart the server, and say it again.', needed);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_library IS 'Refuses a script that is newer than the library; for internal use';

DO $$
BEGIN
    PERFORM sea_mq.check_library();
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'sea_mq needs a database with the encoding UTF8, this one has %', current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported', HINT = 'NATS subjects, headers and JSON are UTF-8.';
    END IF;
END $$;

-- Roles belong to the cluster, so another database may have created them already. DROP EXTENSION leaves them.
DO $$
DECLARE
    role record;
BEGIN
    FOR role IN
        SELECT * FROM (VALUES
            ('sea_mq_producer', 'sea_mq: may emit events'),
            ('sea_mq_consumer', 'sea_mq: may receive events'),
            ('sea_mq_operator', 'sea_mq: may manage streams, consumers and the workers'),
            ('sea_mq_monitor', 'sea_mq: may read the status views'),
            ('sea_mq_viewer', 'sea_mq: may read states and counts, no payload and no text of an error'),
            ('sea_mq_owner', 'sea_mq: owns the messages; the workers act as it, and nobody is a member')) AS r(name, purpose)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role.name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role.name);
            EXECUTE format('COMMENT ON ROLE %I IS %L', role.name, role.purpose);
        END IF;
    END LOOP;
    -- Somebody may have made it beforehand, with more rights than it is meant to have.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'sea_mq_owner'
        AND (r.rolsuper OR r.rolcanlogin OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls))
        OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = 'sea_mq_owner'::regrole)
    THEN
        RAISE EXCEPTION 'role "sea_mq_owner" has rights that the owner of messages must not have'
            USING ERRCODE = 'invalid_grant_operation',
                HINT = 'ALTER ROLE sea_mq_owner NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS, and revoke from it what it was made a member of.';
    END IF;
END $$;

-- Who called: inside the door (sql/api/door.sql, src/host/door.rs) the role in force is the owner's.
CREATE FUNCTION sea_mq.caller() RETURNS oid
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'caller_wrapper';
COMMENT ON FUNCTION sea_mq.caller IS 'The role that called a function of the extension which does its work as the extension''s owner; for internal use';

-- Behind a gateway or a pooler everybody has the same session_user.
CREATE FUNCTION sea_mq.caller_name() RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT pg_get_userbyid(sea_mq.caller())';
COMMENT ON FUNCTION sea_mq.caller_name IS 'The name of the role in force when a function of the extension was called; for internal use';

CREATE FUNCTION sea_mq.actor() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(nullif(btrim(regexp_replace(current_setting('sea_mq.actor', true), '[[:cntrl:]]+', ' ', 'g')), ''), 200)
$$;
COMMENT ON FUNCTION sea_mq.actor IS 'Whom the caller claims to act for (sea_mq.actor), one line of 200 characters at most; for internal use';

CREATE FUNCTION sea_mq.may_be(role oid, other oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- From 16 on a membership need not give the right to become the other role, nor its rights.
    SELECT coalesce(CASE WHEN current_setting('server_version_num')::integer < 160000 THEN pg_has_role($1, $2, 'MEMBER')
        ELSE pg_has_role($1, $2, 'SET') OR pg_has_role($1, $2, 'USAGE') END, false)
$$;
COMMENT ON FUNCTION sea_mq.may_be IS 'Whether one role can act as another; false if one of them does not exist; for internal use';

-- Roles are known by their OIDs, which a dump does not have: this is for what it brings, and for nothing that decides later.
CREATE FUNCTION sea_mq.role_named(name name) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT r.oid FROM pg_roles r WHERE r.rolname = $1';
COMMENT ON FUNCTION sea_mq.role_named IS 'The role of a name; NULL if there is none; for internal use';

CREATE FUNCTION sea_mq.pin_creator() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.created_by_oid := sea_mq.role_named(NEW.created_by);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.pin_creator IS 'Trigger function: which role created it';
-- The owner, and operators, may do what concerns it.
CREATE FUNCTION sea_mq.may_manage(creator oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(sea_mq.caller(), 'sea_mq_operator', 'USAGE') OR sea_mq.may_be(sea_mq.caller(), $1)
$$;
COMMENT ON FUNCTION sea_mq.may_manage IS 'Whether the caller is an operator or a member of the role that created something; for internal use';

-- Backends keep what they have read of some tables; this tells them, at the commit, to read one of them again.
CREATE FUNCTION sea_mq.table_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'table_changed_wrapper';
COMMENT ON FUNCTION sea_mq.table_changed IS 'Trigger function: backends are to read the table again; for internal use';

-- Who this installation is. Deliberately not part of a dump: a restored copy gets an identity of its own, and what it
-- carries of the original's (streams.owner, the xids in the log) shows that it is a copy.
CREATE TABLE sea_mq.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    install_id uuid NOT NULL DEFAULT gen_random_uuid(),
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    lease_epoch bigint NOT NULL DEFAULT 0,
    cleared_server text,
    fenced text,
    adopting boolean NOT NULL DEFAULT false,
    test_mode boolean NOT NULL DEFAULT false
);
INSERT INTO sea_mq.installation (system_identifier, database_oid)
SELECT s.system_identifier, d.oid
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = current_database();

COMMENT ON TABLE sea_mq.installation IS 'Identity of this installation; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.installation.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.installation.install_id IS 'Written into the metadata of the streams that this installation owns';
COMMENT ON COLUMN sea_mq.installation.system_identifier IS 'The cluster''s system identifier when the identity was taken: another one means that the database was moved to another cluster';
COMMENT ON COLUMN sea_mq.installation.database_oid IS 'The database''s OID when the identity was taken: another one means that the database was copied';
COMMENT ON COLUMN sea_mq.installation.installed_at IS 'When the identity was taken';
COMMENT ON COLUMN sea_mq.installation.lease_epoch IS 'The last epoch in which this database''s relay had the installation''s lease at the broker';
COMMENT ON COLUMN sea_mq.installation.cleared_server IS 'The run of the server in which the relay found that no other relay is in the way';
COMMENT ON COLUMN sea_mq.installation.fenced IS 'Why this database publishes and receives nothing: another relay has the lease; sea_mq.adopt() clears it';
COMMENT ON COLUMN sea_mq.installation.adopting IS 'Whether the relay is to take the lease whoever has it (sea_mq.adopt)';
COMMENT ON COLUMN sea_mq.installation.test_mode IS 'Whether there is no broker for this database and its copies, whatever the settings say (sea_mq.test_mode)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.library_version TO sea_mq_operator, sea_mq_monitor;
