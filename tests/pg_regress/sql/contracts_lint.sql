-- Versions compared, the registry checked, and the way into files and back.
SELECT sea_mq.register_event('loft', 'BoxPacked', 1, '{"type": "object", "required": ["box"], "properties": {
    "box": {"type": "integer", "minimum": 1}, "note": {"type": "string"}, "pin": {"x-sea-sensitive": true}}}');
-- The differences from the version before are shown.
SELECT sea_mq.register_event('loft', 'BoxPacked', 2, '{"type": "object", "description": "A box is packed", "properties": {
    "box": {"type": "integer", "minimum": 0}, "weight": {"type": "number"}, "pin": {}}}');
SELECT * FROM sea_mq.compare_versions('Depot', 'BoxPacked', 1, 2);
SELECT * FROM sea_mq.compare_versions('loft', 'box_packed', 1, 1);
SELECT * FROM sea_mq.compare_schemas('{"enum": [1]}', '{"enum": [1, 2], "title": "x", "pattern": "a"}');
SELECT * FROM sea_mq.compare_versions('loft', 'BoxPacked', 1, 3);
SELECT * FROM sea_mq.compare_schemas('{"type": "strnig"}', '{}');
SELECT * FROM sea_mq.compare_schemas('{}', '{"$schema": "http://json-schema.org/draft-07/schema#"}');

-- What is wrong with the registry, and with what is emitted.
SELECT sea_mq.register_schema('sea-mq:/schemas/events/loft/alone.schema.json', '{"type": "string"}');
SELECT sea_mq.register_event('loft', 'BoxLost', 2, '{"type": "object", "examples": [1]}', 'partner', 'A box is lost');
SELECT count(*) FROM (SELECT sea_mq.emit('box', '1', t, '{"box": 1}', context => 'loft') FROM unnest('{BoxPacked,BoxOpened}'::text[]) t) e;
SELECT sea_mq.deprecate_event('loft', 'BoxPacked', 1, 'Use version 2.');
SELECT * FROM sea_mq.lint() WHERE path LIKE 'loft/%';

-- Out of the registry: description and visibility stand in the schema.
SELECT * FROM sea_mq.export_contracts() WHERE path LIKE 'loft/%';
-- And in again: there it is already.
SELECT i.* FROM (SELECT jsonb_object_agg(e.path, e.schema) AS files FROM sea_mq.export_contracts() e) f, sea_mq.import_contracts(f.files) i
WHERE i.result <> 'unchanged';
-- What is referred to comes first, and names that are no places have files too.
SELECT * FROM sea_mq.import_contracts('{
    "loft/a.v1.schema.json": {"$ref": "z.schema.json", "x-sea-visibility": "public"},
    "loft/z.schema.json": {"$ref": "https://example.com/unit"},
    "external/https%3A%2F%2Fexample.com%2Funit.schema.json": {"type": "string"}}');
SELECT context, event_type, version, visibility FROM sea_mq.event_types WHERE event_type = 'a';
SELECT uri, schema FROM sea_mq.schema_definitions WHERE uri LIKE '%/loft/z.%' OR uri LIKE 'https:%' ORDER BY uri;
SELECT * FROM sea_mq.export_contracts() WHERE path LIKE 'external/%';
-- Truths too can have a description.
SELECT sea_mq.register_event('loft', 'Anything', 1, 'true', 'partner', 'Whatever it is');
SELECT * FROM sea_mq.export_contracts() WHERE path LIKE 'loft/anything%';
SELECT i.* FROM sea_mq.export_contracts() e, sea_mq.import_contracts(jsonb_build_object(e.path, e.schema)) i WHERE e.path LIKE 'loft/anything%';

-- All or nothing.
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/other.v1.schema.json": {"type": "strnig"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/other.v1.schema.json": {"$ref": "gone.schema.json"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/a.v1.schema.json": {"type": "string"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/BoxPacked.v3.schema.json": {}}');
SELECT * FROM sea_mq.import_contracts('{"../loft/a.v1.schema.json": {}}');
SELECT * FROM sea_mq.import_contracts('{"loft/a.v1.example.json": {}}');
SELECT * FROM sea_mq.import_contracts('[]');
SELECT * FROM sea_mq.import_contracts(NULL);
\set VERBOSITY sqlstate
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/other.v1.schema.json": {"type": "strnig"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/other.v1.schema.json": {"$ref": "gone.schema.json"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}, "loft/a.v1.schema.json": {"type": "string"}}');
SELECT * FROM sea_mq.import_contracts('{"loft/BoxPacked.v3.schema.json": {}}');
SELECT * FROM sea_mq.import_contracts('{"../loft/a.v1.schema.json": {}}');
SELECT * FROM sea_mq.import_contracts('{"loft/a.v1.example.json": {}}');
SELECT * FROM sea_mq.import_contracts('[]');
SELECT * FROM sea_mq.import_contracts(NULL);
SELECT * FROM sea_mq.compare_versions('loft', 'BoxPacked', 1, 3);
SELECT * FROM sea_mq.compare_schemas('{"type": "strnig"}', '{}');
\set VERBOSITY default
SELECT count(*) FROM sea_mq.event_types WHERE event_type IN ('new', 'other');

-- Everybody may look, operators may import.
SET ROLE sea_mq_producer;
SELECT count(*) > 0 AS compared FROM sea_mq.compare_versions('loft', 'BoxPacked', 1, 2);
SELECT count(*) > 0 AS exported FROM sea_mq.export_contracts();
SELECT * FROM sea_mq.import_contracts('{}');
SELECT * FROM sea_mq.lint();
SET ROLE sea_mq_operator;
SELECT * FROM sea_mq.import_contracts('{"loft/new.v1.schema.json": {}}');
SELECT count(*) > 0 AS found FROM sea_mq.lint();
RESET ROLE;
