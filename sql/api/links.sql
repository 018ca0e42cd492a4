-- Links between entities of several contexts. Neither end need exist here: there is no foreign key across modules.
CREATE TABLE sea_mq.entity_links (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source_module text COLLATE "C" NOT NULL CHECK (source_module <> '' AND octet_length(source_module) <= 200),
    source_type text COLLATE "C" NOT NULL CHECK (source_type <> '' AND octet_length(source_type) <= 200),
    source_id text COLLATE "C" NOT NULL CHECK (source_id <> '' AND octet_length(source_id) <= 400),
    target_module text COLLATE "C" NOT NULL CHECK (target_module <> '' AND octet_length(target_module) <= 200),
    target_type text COLLATE "C" NOT NULL CHECK (target_type <> '' AND octet_length(target_type) <= 200),
    target_id text COLLATE "C" NOT NULL CHECK (target_id <> '' AND octet_length(target_id) <= 400),
    link_type text COLLATE "C" NOT NULL DEFAULT 'reference' CHECK (link_type ~ '^[a-z][a-z0-9_]{0,99}$'),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by name NOT NULL,
    created_by_oid oid
);
CREATE TRIGGER pin BEFORE INSERT ON sea_mq.entity_links FOR EACH ROW EXECUTE FUNCTION sea_mq.pin_creator();
COMMENT ON TRIGGER pin ON sea_mq.entity_links IS 'Which role created the link';
-- One link of a type between two entities; also what is asked for by source.
CREATE UNIQUE INDEX entity_links_ends ON sea_mq.entity_links
    (source_module, source_type, source_id, target_module, target_type, target_id, link_type);
CREATE INDEX entity_links_target ON sea_mq.entity_links (target_module, target_type, target_id);
CREATE INDEX entity_links_type ON sea_mq.entity_links (link_type, id);
SELECT pg_catalog.pg_extension_config_dump('sea_mq.entity_links', '');
COMMENT ON TABLE sea_mq.entity_links IS 'Links between entities, also of different modules; see sea_mq.create_link';
COMMENT ON COLUMN sea_mq.entity_links.id IS 'Id of the link; what drop_link takes';
COMMENT ON COLUMN sea_mq.entity_links.source_module IS 'Module (context) of the entity that the link begins at';
COMMENT ON COLUMN sea_mq.entity_links.source_type IS 'Its type';
COMMENT ON COLUMN sea_mq.entity_links.source_id IS 'Its id';
COMMENT ON COLUMN sea_mq.entity_links.target_module IS 'Module (context) of the entity that the link leads to';
COMMENT ON COLUMN sea_mq.entity_links.target_type IS 'Its type';
COMMENT ON COLUMN sea_mq.entity_links.target_id IS 'Its id';
COMMENT ON COLUMN sea_mq.entity_links.link_type IS 'reference, cascade, aggregate_root, or one of your own: small letters, digits and _';
COMMENT ON COLUMN sea_mq.entity_links.metadata IS 'What else is to be known of the link: a JSON object';
COMMENT ON COLUMN sea_mq.entity_links.created_at IS 'When it was created';
COMMENT ON COLUMN sea_mq.entity_links.created_by IS 'Role that created it, by the name that it had';
COMMENT ON COLUMN sea_mq.entity_links.created_by_oid IS 'That role: it may be renamed, and no other is taken for it';

-- All links at once: in the order of their ends, so that two transactions that create the same ones wait and do not deadlock.
CREATE FUNCTION sea_mq.create_links(links jsonb[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wrong record;
    known CONSTANT text[] := '{source_module,source_type,source_id,target_module,target_type,target_id,link_type,metadata}';
BEGIN
    SELECT l.place, l.link, coalesce((SELECT k FROM jsonb_object_keys(CASE jsonb_typeof(l.link) WHEN 'object' THEN l.link ELSE '{}' END) k
        WHERE k <> ALL (known) LIMIT 1), '') AS key INTO wrong
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    WHERE coalesce(jsonb_typeof(l.link), '') <> 'object' OR EXISTS (SELECT FROM jsonb_object_keys(l.link) k WHERE k <> ALL (known))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'link % of the array is not one%', wrong.place, coalesce(': ' || nullif(wrong.key, '') || ' is not known', '')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass objects with ' || array_to_string(known, ', ') || '.';
    END IF;
    INSERT INTO sea_mq.entity_links (source_module, source_type, source_id, target_module, target_type, target_id, link_type, metadata,
        created_by)
    SELECT l.link ->> 'source_module', l.link ->> 'source_type', l.link ->> 'source_id', l.link ->> 'target_module',
        l.link ->> 'target_type', l.link ->> 'target_id', coalesce(l.link ->> 'link_type', 'reference'),
        coalesce(nullif(l.link -> 'metadata', 'null'), '{}'), pg_get_userbyid(sea_mq.caller())
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    ORDER BY 1, 2, 3, 4, 5, 6, 7, l.place
    ON CONFLICT (source_module, source_type, source_id, target_module, target_type, target_id, link_type) DO NOTHING;
    SELECT l.place, e.id INTO wrong
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    JOIN sea_mq.entity_links e ON e.source_module = l.link ->> 'source_module' AND e.source_type = l.link ->> 'source_type'
        AND e.source_id = l.link ->> 'source_id' AND e.target_module = l.link ->> 'target_module'
        AND e.target_type = l.link ->> 'target_type' AND e.target_id = l.link ->> 'target_id'
        AND e.link_type = coalesce(l.link ->> 'link_type', 'reference')
    WHERE e.metadata <> coalesce(nullif(l.link -> 'metadata', 'null'), '{}')
    ORDER BY l.place LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is that link already, with other metadata: %', wrong.id
            USING ERRCODE = 'unique_violation', HINT = 'Drop it with sea_mq.drop_link first, or give the link another link_type.';
    END IF;
    RETURN QUERY SELECT e.id
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    JOIN sea_mq.entity_links e ON e.source_module = l.link ->> 'source_module' AND e.source_type = l.link ->> 'source_type'
        AND e.source_id = l.link ->> 'source_id' AND e.target_module = l.link ->> 'target_module'
        AND e.target_type = l.link ->> 'target_type' AND e.target_id = l.link ->> 'target_id'
        AND e.link_type = coalesce(l.link ->> 'link_type', 'reference')
    ORDER BY l.place;
EXCEPTION WHEN not_null_violation OR check_violation THEN
    RAISE EXCEPTION 'the link cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Modules, types and ids are not empty and have up to 200 bytes (ids: 400); link_type is of small letters, digits and _; metadata is a JSON object.';
END $$;
COMMENT ON FUNCTION sea_mq.create_links IS
'Creates links, each an object with the arguments of sea_mq.create_link as keys, and returns their ids in that order. Those that are
there already are left as they are. All or none are created. Errors: 22023, 23505 (one is there with other metadata)';

CREATE FUNCTION sea_mq.create_link(source_module text, source_type text, source_id text, target_module text, target_type text,
    target_id text, link_type text DEFAULT 'reference', metadata jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM sea_mq.create_links(ARRAY[jsonb_build_object('source_module', $1, 'source_type', $2, 'source_id', $3,
        'target_module', $4, 'target_type', $5, 'target_id', $6, 'link_type', $7, 'metadata', $8)])
$$;
COMMENT ON FUNCTION sea_mq.create_link IS
'Links an entity (source) to another one (target), in the current transaction, and returns the link''s id. Repeated, it returns the same
id. link_type: reference, cascade, aggregate_root, or one of your own. Errors: 22023, 23505 (it is there with other metadata)';

CREATE FUNCTION sea_mq.drop_link(id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped sea_mq.entity_links;
BEGIN
    SELECT l.* INTO dropped FROM sea_mq.entity_links l WHERE l.id = drop_link.id;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF NOT sea_mq.may_manage(dropped.created_by_oid) THEN
        RAISE EXCEPTION 'the link was created by "%"', dropped.created_by
            USING ERRCODE = 'insufficient_privilege', HINT = 'Members of that role and of sea_mq_operator may drop it.';
    END IF;
    DELETE FROM sea_mq.entity_links l WHERE l.id = drop_link.id;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION sea_mq.drop_link IS
'Removes a link; false if there was none. Error 42501: the caller is neither a member of the role that created it nor an operator';

CREATE FUNCTION sea_mq.find_links_by_source(source_module text, source_type text, source_id text, link_type text DEFAULT NULL)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.source_module = $1 AND l.source_type = $2 AND l.source_id = $3 AND ($4 IS NULL OR l.link_type = $4)
    ORDER BY l.created_at, l.id
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_source IS 'The links that begin at an entity, the oldest first; link_type: those of one type';

CREATE FUNCTION sea_mq.find_links_by_target(target_module text, target_type text, target_id text, link_type text DEFAULT NULL)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.target_module = $1 AND l.target_type = $2 AND l.target_id = $3 AND ($4 IS NULL OR l.link_type = $4)
    ORDER BY l.created_at, l.id
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_target IS 'The links that lead to an entity, the oldest first; link_type: those of one type';

-- A plan for any id reads as many rows as it returns; one for NULL has no condition on the id.
CREATE FUNCTION sea_mq.find_links_by_type(link_type text, after uuid DEFAULT NULL, max integer DEFAULT 100)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.link_type = $1 AND l.id > coalesce($2, '00000000-0000-0000-0000-000000000000')
    ORDER BY l.id LIMIT greatest($3, 0)
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_type IS
'The links of a type in the order of their ids, max at a time: pass the id of the last one as after to get the next';

CREATE FUNCTION sea_mq.find_link(module_a text, type_a text, id_a text, module_b text, type_b text, id_b text)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE (l.source_module, l.source_type, l.source_id) = ($1, $2, $3) AND (l.target_module, l.target_type, l.target_id) = ($4, $5, $6)
    UNION
    SELECT l.* FROM sea_mq.entity_links l
    WHERE (l.source_module, l.source_type, l.source_id) = ($4, $5, $6) AND (l.target_module, l.target_type, l.target_id) = ($1, $2, $3)
    ORDER BY 10, 1
$$;
COMMENT ON FUNCTION sea_mq.find_link IS 'The links between two entities, in either direction, the oldest first';

CREATE FUNCTION sea_mq.links_of(module text, type text, id text)
RETURNS TABLE (link_id uuid, direction text, link_type text, other_module text, other_type text, other_id text, metadata jsonb,
    created_at timestamptz, created_by name)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.id, 'outgoing', l.link_type, l.target_module, l.target_type, l.target_id, l.metadata, l.created_at, l.created_by
    FROM sea_mq.entity_links l WHERE (l.source_module, l.source_type, l.source_id) = ($1, $2, $3)
    UNION ALL
    SELECT l.id, 'incoming', l.link_type, l.source_module, l.source_type, l.source_id, l.metadata, l.created_at, l.created_by
    FROM sea_mq.entity_links l WHERE (l.target_module, l.target_type, l.target_id) = ($1, $2, $3)
    ORDER BY 8, 1
$$;
COMMENT ON FUNCTION sea_mq.links_of IS
'The links of an entity with the entity at their other end; direction: outgoing (it is the source) or incoming. A link of an entity to
itself has a row for each direction';

-- Handlers link what they make, so whoever emits or handles may.
GRANT EXECUTE ON FUNCTION sea_mq.create_links, sea_mq.create_link, sea_mq.drop_link TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.find_links_by_source, sea_mq.find_links_by_target, sea_mq.find_links_by_type, sea_mq.find_link,
    sea_mq.links_of TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.entity_links TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
