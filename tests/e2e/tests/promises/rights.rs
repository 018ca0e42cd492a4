//! Who may do what: the tables of docs/sql.md say it, and the catalogs agree, in both directions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness::{Database, StageOptions};

/// The extension's roles, in the order of the tables' columns.
const ROLES: [&str; 5] = ["producer", "consumer", "operator", "monitor", "viewer"];

/// A superuser's rights are lent to callers by these alone; SECURITY.md says why.
const DEFINERS: [&str; 1] = ["sea_mq.workers"];

/// What runs with its callers' rights and in their search path, which says what names in their arguments mean.
const IN_CALLERS_PATH: [&str; 1] = ["sea_mq.capture_table"];

/// Rows of a table: a name, and for each role what it may do.
type Rows = BTreeMap<String, [String; 5]>;

async fn prepared(name: &str) -> (harness::Stage, Database) {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start(name).await;
    let db = stage.connect().await;
    (stage, db)
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What the catalogs say. Overloads of a function share a row.
async fn granted(db: &Database, sql: &str) -> Rows {
    let roles: Vec<String> = ROLES.iter().map(|role| format!("sea_mq_{role}")).collect();
    let rows = db.query(sql, &[&roles]).await.expect("the catalogs can be read");
    let mut found = Rows::new();
    for row in rows {
        let (name, place, may): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
        let place = usize::try_from(place - 1).expect("places begin with 1");
        found.entry(name).or_default()[place] = may;
    }
    found
}

const FUNCTIONS: &str = "SELECT DISTINCT p.proname::text, r.place, 'x'
    FROM pg_proc p, unnest($1::text[]) WITH ORDINALITY r(role, place)
    WHERE p.pronamespace = 'sea_mq'::regnamespace AND has_function_privilege(r.role, p.oid, 'EXECUTE')";

const RELATIONS: &str = "SELECT c.relname::text, r.place, string_agg(k.kind, ', ' ORDER BY k.place)
    FROM pg_class c, unnest($1::text[]) WITH ORDINALITY r(role, place),
        unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) WITH ORDINALITY k(kind, place)
    WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege(r.role, c.oid, k.kind)
    GROUP BY c.oid, c.relname, r.place";

/// The rows of the table in a section that has these columns.
fn documented(text: &str, heading: &str) -> Rows {
    let rows = section(text, heading).lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        let may: Vec<String> = cells[1..].iter().map(|&cell| cell.to_owned()).collect();
        Some((name.to_owned(), may.try_into().unwrap_or_else(|_| panic!("not five roles: {line}"))))
    });
    rows.collect()
}

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading} in docs/sql.md"));
    rest.find("\n#").map_or(rest, |end| &rest[..end])
}

fn printed(first: &str, rows: &Rows) -> String {
    let line = |name: &str, cells: &[String]| format!("| {name} | {} |\n", cells.join(" | "));
    let mut text = line(first, &ROLES.map(str::to_owned)) + "|---|---|---|---|---|---|\n";
    for (name, cells) in rows {
        text += &line(&format!("`{name}`"), cells);
    }
    text
}

/// Compares a table of docs/sql.md with what is granted. With `ACCEPT=1` it is written anew.
fn compare(heading: &str, first: &str, granted: &Rows) {
    let text = read("docs/sql.md");
    let documented = documented(&text, heading);
    if &documented == granted {
        return;
    }
    let table = printed(first, granted);
    if std::env::var_os("ACCEPT").is_some() {
        let old = section(&text, heading);
        let intro = old.split_once("\n|").map_or(old, |(intro, _)| intro);
        let new = format!("{}\n\n{table}", intro.trim_end());
        std::fs::write(file("docs/sql.md"), text.replacen(old, &new, 1)).expect("docs/sql.md can be written");
    }
    let differs = |(name, cells): &(&String, &[String; 5]), other: &Rows| other.get(*name) != Some(*cells);
    let missing: Vec<_> = granted.iter().filter(|row| differs(row, &documented)).collect();
    let wrong: Vec<_> = documented.iter().filter(|row| differs(row, granted)).collect();
    panic!(
        "{heading} in docs/sql.md is not what is granted.\nnot there: {missing:?}\nnot true: {wrong:?}\nIt should be (ACCEPT=1 writes it):\n{table}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_call_and_read_what_is_what_the_documentation_says() {
    let (_stage, db) = prepared("rights_documented").await;
    let functions = granted(&db, FUNCTIONS).await;
    assert!(functions.len() > 50, "{functions:?}");
    compare("### Who may call what", "Function", &functions);
    compare("### Who may read and write what", "Table or view", &granted(&db, RELATIONS).await);
}

/// Sets of rows that must be empty, each with what it would mean if it were not.
const NEVER: [(&str, &str); 14] = [
    (
        "granted to PUBLIC, or to somebody who has no role of the extension",
        "SELECT o.what || ': ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END FROM (
            SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner FROM pg_proc p
            WHERE p.pronamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace)
            UNION ALL SELECT c.oid::regclass::text, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)), c.relowner
            FROM pg_class c WHERE c.relnamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
            UNION ALL SELECT n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)), n.nspowner FROM pg_namespace n
            WHERE n.nspname IN ('sea_mq', 'sea_mq_inside')) o(what, acl, owner), aclexplode(o.acl) a
        WHERE a.grantee <> o.owner AND (a.grantee = 0 OR a.grantee::regrole::text NOT IN
            ('sea_mq_owner', 'sea_mq_producer', 'sea_mq_consumer', 'sea_mq_operator', 'sea_mq_monitor', 'sea_mq_viewer'))",
    ),
    (
        "rights that can be granted on",
        "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(p.proacl) a
        WHERE p.pronamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace) AND a.is_grantable AND a.grantee <> p.proowner
        UNION ALL SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND a.is_grantable AND a.grantee <> c.relowner",
    ),
    (
        "granted for a column, which the tables do not show",
        "SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND a.attacl IS NOT NULL
            -- For INSERT … RETURNING id; docs/sql.md says so above its tables.
            AND NOT (c.relname = 'outbox_events' AND a.attname = 'id' AND (SELECT bool_and(x.grantee = 'sea_mq_producer'::regrole
                AND x.privilege_type = 'SELECT' AND NOT x.is_grantable) FROM aclexplode(a.attacl) x))",
    ),
    (
        "the inside of functions, open to somebody else than the owner of the messages",
        "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE p.pronamespace = 'sea_mq_inside'::regnamespace AND a.grantee NOT IN (p.proowner, 'sea_mq_owner'::regrole)
        UNION ALL SELECT 'the schema' FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname = 'sea_mq_inside' AND a.grantee NOT IN (n.nspowner, 'sea_mq_owner'::regrole)",
    ),
    (
        "in a search path that its caller chooses, and callable",
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace) AND l.lanname NOT IN ('c', 'internal')
            AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s = 'search_path=pg_catalog, pg_temp')
            AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee NOT IN (p.proowner, 'sea_mq_owner'::regrole))
            AND NOT split_part(p.oid::regprocedure::text, '(', 1) = ANY ($1)",
    ),
    (
        "in a search path that its caller chooses, and run by a trigger",
        "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = 'sea_mq'::regnamespace AND l.lanname <> 'c' AND p.proconfig IS NULL
            AND p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype)",
    ),
    (
        "tables and sequences that are not the owner's",
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace)
            AND c.relkind IN ('r', 'p', 'S') AND c.relowner <> 'sea_mq_owner'::regrole",
    ),
    (
        "the owner's, and no table or sequence or what belongs to one",
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proowner = 'sea_mq_owner'::regrole
        UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relowner = 'sea_mq_owner'::regrole
            AND (c.relkind NOT IN ('r', 'p', 'S', 'i', 'I', 't', 'c') OR c.relnamespace NOT IN ('sea_mq'::regnamespace, 'pg_toast'::regnamespace))
        UNION ALL SELECT n.nspname FROM pg_namespace n WHERE n.nspowner = 'sea_mq_owner'::regrole
        UNION ALL SELECT d.datname FROM pg_database d WHERE d.datdba = 'sea_mq_owner'::regrole",
    ),
    (
        "roles with attributes that they should not have",
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'sea\\_mq\\_%'
            AND (rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolconfig IS NOT NULL)",
    ),
    (
        "memberships of the extension's roles",
        "SELECT m.member::regrole || ' in ' || m.roleid::regrole FROM pg_auth_members m
        WHERE m.member::regrole::text LIKE 'sea\\_mq\\_%' OR m.roleid = 'sea_mq_owner'::regrole",
    ),
    (
        "rights to write to tables",
        "SELECT c.oid::regclass || ': ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace) AND a.grantee NOT IN (c.relowner, 'sea_mq_owner'::regrole)
            AND a.privilege_type <> 'SELECT' AND NOT (c.relname = 'outbox_events' AND a.privilege_type = 'INSERT')",
    ),
    (
        "rights on sequences",
        "SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'S' AND a.grantee NOT IN (c.relowner, 'sea_mq_owner'::regrole)",
    ),
    (
        "schemas in which somebody else can make something",
        "SELECT n.nspname || ': ' || a.grantee::regrole FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname IN ('sea_mq', 'sea_mq_inside') AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner",
    ),
    (
        "functions of C that are callable and whose inside is not",
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.prosrc = 'door_wrapper'
            AND NOT EXISTS (SELECT FROM pg_proc i WHERE i.pronamespace = 'sea_mq_inside'::regnamespace AND i.proname = p.proname
                AND i.proargtypes = p.proargtypes AND i.prorettype = p.prorettype AND i.proretset = p.proretset AND i.proisstrict = p.proisstrict
                AND i.proargnames IS NOT DISTINCT FROM p.proargnames AND i.proallargtypes IS NOT DISTINCT FROM p.proallargtypes
                AND i.proowner = p.proowner)",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_a_right_that_is_not_meant() {
    let (_stage, db) = prepared("rights_meant").await;
    let exceptions: Vec<String> = IN_CALLERS_PATH.map(str::to_owned).to_vec();
    let mut found = Vec::new();
    for (what, sql) in NEVER {
        let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            if sql.contains("$1") { &[&exceptions] } else { &[] };
        found.extend(db.values::<String>(sql, parameters).await.into_iter().map(|object| format!("{what}: {object}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superuser_s_rights_are_lent_by_what_security_md_lists_alone() {
    let (_stage, db) = prepared("rights_definers").await;
    let sql = "SELECT p.oid::regproc::text FROM pg_proc p
        WHERE p.pronamespace IN ('sea_mq'::regnamespace, 'sea_mq_inside'::regnamespace) AND p.prosecdef ORDER BY 1";
    assert_eq!(db.values::<String>(sql, &[]).await, DEFINERS);
    let text = read("SECURITY.md");
    for name in DEFINERS {
        assert!(text.contains(&format!("`{name}")), "SECURITY.md does not list {name}");
    }
}
