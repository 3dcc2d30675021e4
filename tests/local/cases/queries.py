"""Queries and changes of data: what they return, and what is refused wherever in one it stands."""

from . import ISSUES, LINTER, POSTGRESQL, POSTGREST, RECORDED, SQL_FEATURES, WORDED_AFTER, Case, each, query

LOCKING = "0A000 locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"

CASES = [
    # One table
    query("SELECT name FROM river WHERE length_km > 1000", "name", ("Elbe",)),
    query("SELECT name AS n, people * 1000 FROM town WHERE river IS NULL", "n ?column?", ("Hilden", "55000")),
    query("SELECT DISTINCT river FROM town WHERE river IS NOT NULL", "river", ("Elbe",)),
    query(
        "SELECT DISTINCT ON (river) river, name FROM town ORDER BY river, people DESC",
        "river name",
        ("Elbe", "Hamburg"),
        (None, "Hilden"),
    ),
    query("SELECT name FROM town ORDER BY river ASC NULLS FIRST, people", "name", ("Hilden",), ("Dresden",), ("Hamburg",)),
    query("SELECT code FROM river ORDER BY code DESC NULLS LAST", "code", ("E",), (None,)),
    query("SELECT name FROM town ORDER BY people DESC LIMIT 1 OFFSET 1", "name", ("Dresden",)),
    query("SELECT name FROM town WHERE people BETWEEN 500 AND 2000 ORDER BY name FETCH FIRST 1 ROW ONLY", "name", ("Dresden",)),
    query("SELECT id FROM town WHERE name LIKE 'H%' AND NOT id = 3", "id", ("2",)),
    query("SELECT id FROM town WHERE id IN (3, 1) ORDER BY id", "id", ("1",), ("3",)),
    query("SELECT name FROM town WHERE river IS DISTINCT FROM 'Elbe'", "name", ("Hilden",)),
    # Groups
    query(
        "SELECT river, count(*), sum(people) FROM town GROUP BY river ORDER BY river",
        "river count sum",
        ("Elbe", "2", "2473"),
        (None, "1", "55"),
    ),
    query("SELECT river FROM town GROUP BY DISTINCT river HAVING count(*) > 1", "river", ("Elbe",)),
    query(
        "SELECT min(people), max(name), count(DISTINCT river), count(river) FROM town",
        "min max count count",
        ("55", "Hilden", "1", "2"),
    ),
    query("SELECT count(*) FILTER (WHERE people > 1000) AS big FROM town", "big", ("1",)),
    query(
        "SELECT river, sum(people) FROM town GROUP BY GROUPING SETS ((river), ()) ORDER BY sum",
        "river sum",
        (None, "55"),
        ("Elbe", "2473"),
        (None, "2528"),
    ),
    query("SELECT sum(people) FROM town GROUP BY ROLLUP (river) ORDER BY 1 DESC", "sum", ("2528",), ("2473",), ("55",)),
    query("SELECT max(people) FROM town GROUP BY CUBE (river) ORDER BY 1", "max", ("55",), ("1910",), ("1910",)),
    query("SELECT string_agg(name, '+' ORDER BY id DESC) AS all_names FROM town", "all_names", ("Hilden+Hamburg+Dresden",)),
    # Windows
    query(
        "SELECT name, rank() OVER (PARTITION BY river ORDER BY people DESC) FROM town WHERE river = 'Elbe'",
        "name rank",
        ("Hamburg", "1"),
        ("Dresden", "2"),
    ),
    query(
        "SELECT row_number() OVER (ORDER BY people) AS n, id FROM town ORDER BY id", "n id", ("2", "1"), ("3", "2"), ("1", "3")
    ),
    query("SELECT id, lag(id) OVER (ORDER BY id) FROM town ORDER BY id DESC", "id lag", ("3", "2"), ("2", "1"), ("1", None)),
    query(
        "SELECT sum(people) OVER w AS so_far FROM town WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING) ORDER BY id",
        "so_far",
        ("563",),
        ("2473",),
        ("2528",),
    ),
    # Several tables
    query(
        "SELECT t.name, r.length_km FROM town t JOIN river r ON r.name = t.river ORDER BY t.id",
        "name length_km",
        ("Dresden", "1094"),
        ("Hamburg", "1094"),
    ),
    query("SELECT t.id FROM town t INNER JOIN river r ON t.river = r.name AND r.code = 'E' ORDER BY 1", "id", ("1",), ("2",)),
    query(
        "SELECT t.name, code FROM town t LEFT JOIN river r ON t.river = r.name WHERE t.id > 1 ORDER BY t.id",
        "name code",
        ("Hamburg", "E"),
        ("Hilden", None),
    ),
    query(
        "SELECT r.name, t.id FROM town t RIGHT OUTER JOIN river r ON r.name = t.river WHERE t.id IS NULL",
        "name id",
        ("Isar", None),
    ),
    query(
        "SELECT r.name, t.name FROM river r FULL JOIN town t ON r.name = t.river ORDER BY t.id",
        "name name",
        ("Elbe", "Dresden"),
        ("Elbe", "Hamburg"),
        (None, "Hilden"),
        ("Isar", None),
    ),
    query("SELECT count(*) FROM town CROSS JOIN river", "count", ("6",)),
    query("SELECT count(*) FROM town, river", "count", ("6",)),
    query("SELECT r.name FROM river r NATURAL JOIN town", "name"),
    query("SELECT id FROM town JOIN holder USING (id)", "id"),
    query(
        "SELECT r.name, n FROM river r CROSS JOIN LATERAL (SELECT count(*) AS n FROM town WHERE river = r.name) x ORDER BY 1",
        "name n",
        ("Elbe", "2"),
        ("Isar", "0"),
    ),
    query(
        "SELECT t.name, x.l FROM town t JOIN LATERAL (SELECT t.people AS l FROM river WHERE name = t.river) x ON true ORDER BY l",
        "name l",
        ("Dresden", "563"),
        ("Hamburg", "1910"),
    ),
    # Queries in queries
    query("SELECT (SELECT max(length_km) FROM river) - 94 AS about", "about", ("1000",)),
    query("SELECT name FROM river WHERE name NOT IN (SELECT river FROM town WHERE river IS NOT NULL)", "name", ("Isar",)),
    query("SELECT name FROM river r WHERE EXISTS (SELECT FROM town WHERE river = r.name)", "name", ("Elbe",)),
    query(
        "SELECT name FROM town t WHERE people = (SELECT max(people) FROM town o WHERE o.river = t.river)", "name", ("Hamburg",)
    ),
    query("SELECT name FROM town WHERE people > ALL (SELECT length_km FROM river)", "name", ("Hamburg",)),
    query("SELECT s.n FROM (SELECT length_km / 100 AS n FROM river) AS s ORDER BY s.n", "n", ("2",), ("10",)),
    query("WITH elbe AS (SELECT * FROM town WHERE river = 'Elbe') SELECT sum(people) FROM elbe", "sum", ("2473",)),
    query(
        "WITH a AS (SELECT 2 AS two), b AS (SELECT two * two AS four FROM a) SELECT two, four FROM a, b", "two four", ("2", "4")
    ),
    query(
        "WITH RECURSIVE powers(p) AS (VALUES (1) UNION ALL SELECT p * 3 FROM powers WHERE p < 20) SELECT p FROM powers",
        "p",
        ("1",),
        ("3",),
        ("9",),
        ("27",),
    ),
    query(
        "SELECT name FROM river UNION SELECT river FROM town WHERE river > 'A' ORDER BY name DESC", "name", ("Isar",), ("Elbe",)
    ),
    query("SELECT 'x' AS x UNION ALL SELECT 'x'", "x", ("x",), ("x",)),
    query("SELECT name FROM river INTERSECT SELECT river FROM town", "name", ("Elbe",)),
    query("SELECT name FROM river EXCEPT SELECT river FROM town", "name", ("Isar",)),
    query("VALUES (1, 'one'), (2, NULL)", "column1 column2", ("1", "one"), ("2", None)),
    query("TABLE river", "name length_km code", ("Elbe", "1094", "E"), ("Isar", "295", None)),
    # Expressions
    query("SELECT unnest(string_to_array('p;q', ';')) AS part", "part", ("p",), ("q",)),
    query("SELECT n FROM generate_series(2, 6, 2) AS n", "n", ("2",), ("4",), ("6",)),
    query("SELECT string_to_array('7-8', '-')", "string_to_array", ("{7,8}",)),
    query(
        "SELECT CASE people / 1000 WHEN 0 THEN 'small' WHEN 1 THEN 'large' END FROM town ORDER BY id",
        "case",
        ("small",),
        ("large",),
        ("small",),
    ),
    query("SELECT name, CASE WHEN river IS NULL THEN '-' ELSE river END FROM town WHERE id = 3", "name river", ("Hilden", "-")),
    query(
        "SELECT coalesce(code, name), nullif(name, 'Isar'), greatest(1, 3, 2) FROM river WHERE code IS NULL",
        "coalesce nullif greatest",
        ("Isar", None, "3"),
    ),
    query("SELECT CAST('12' AS int) + 1, 'true'::bool, 7::text || '!'", "?column? bool ?column?", ("13", "t", "7!")),
    query(
        "SELECT upper(name), lower(code), length(name), name || '/' || code FROM river WHERE code = 'E'",
        "upper lower length ?column?",
        ("ELBE", "e", "4", "Elbe/E"),
    ),
    query("SELECT ROW(id, name) FROM town WHERE id = 1", "row", ("(1,Dresden)",)),
    query(
        "SELECT ROW(1, NULL) IS NULL AS empty, (1, 'a') < (1, 'b') AS before, ROW(1, 2) = ROW(1, 2)",
        "empty before ?column?",
        ("f", "t", "t"),
    ),
    query("SELECT river FROM river WHERE code = 'E'", "river", ("(Elbe,1094,E)",)),
    query(
        "SELECT (SELECT r FROM river r WHERE r.name = t.river) AS all_of_it FROM town t WHERE id = 2",
        "all_of_it",
        ("(Elbe,1094,E)",),
    ),
    query("SELECT '10.1.0.0/16'::inet, host('::1'::inet)", "inet host", ("10.1.0.0/16", "::1")),
    query(
        """SELECT doc ->> 'k' AS k, doc -> 'l' -> 1 AS l FROM (SELECT '{"k": "v", "l": [1, 2]}'::jsonb AS doc) AS d""",
        "k l",
        ("v", "2"),
    ),
    query("""SELECT '{"a": {"b": 2}}'::json #>> '{a,b}', '{"a": 1}'::jsonb @> '{}'""", "?column? ?column?", ("2", "t")),
    query(
        "SELECT date '2026-02-28' + 1 AS next, extract(year FROM timestamp '2026-05-01 10:00') AS y",
        "next y",
        ("2026-03-01", "2026"),
    ),
    query("SELECT sum(x) FROM (VALUES (0.1::numeric(3, 1)), (0.2)) AS v(x)", "sum", ("0.3",)),
    # Changes of data
    query("SELECT count(*) FROM pg_class WHERE relname = 'river'", "count", ("1",)),
    *each(
        POSTGRESQL,
        "INSERT 0 1",
        "INSERT INTO river (name) VALUES ('Oder') ON CONFLICT (name) DO UPDATE SET length_km = EXCLUDED.length_km",
        "INSERT INTO river VALUES ('Elbe', 1, 'E') ON CONFLICT (name) DO UPDATE SET length_km = 2 WHERE river.code = 'E'",
        "INSERT INTO town VALUES (4, 'Meißen', 28, 'Elbe')",
        "INSERT INTO parent (id, name) VALUES (gen_random_uuid(), 'x') ON CONFLICT DO NOTHING",
    ),
    *each(POSTGRESQL, "INSERT 0 0", "INSERT INTO river VALUES ('Isar') ON CONFLICT (name) DO NOTHING"),
    *each(
        POSTGRESQL,
        "INSERT 0 5",
        "INSERT INTO holder SELECT n FROM generate_series(1, 5) AS n",
        "INSERT INTO holder SELECT generate_series(1, 5)",
    ),
    *each(POSTGRESQL, "UPDATE 2", "UPDATE town SET people = people + 1 FROM river WHERE town.river = river.name"),
    *each(POSTGRESQL, "DELETE 2", "DELETE FROM town USING river WHERE river.name = town.river"),
    *each(POSTGRESQL, "DELETE 1", "DELETE FROM town WHERE name ILIKE 'hilden'"),
    Case(
        "INSERT INTO river VALUES ('Oder', 840, DEFAULT) RETURNING name, length_km + 1 AS more",
        "INSERT 0 1",
        POSTGRESQL,
        ["name", "more"],
        [["Oder", "841"]],
    ),
    Case(
        "UPDATE river SET code = 'I' WHERE name = 'Isar' RETURNING code, name",
        "UPDATE 1",
        POSTGRESQL,
        ["code", "name"],
        [["I", "Isar"]],
    ),
    Case(
        "DELETE FROM town WHERE id = 3 RETURNING *",
        "DELETE 1",
        POSTGRESQL,
        ["id", "name", "people", "river"],
        [["3", "Hilden", "55", None]],
    ),
    *each(
        RECORDED,
        '23503 insert or update on table "town" violates foreign key constraint "town_river_fkey"',
        "INSERT INTO town VALUES (4, 'Wien', 2000, 'Donau')",
        "UPDATE town SET river = 'Donau' WHERE id = 1",
    ),
    *each(
        POSTGRESQL,
        '23503 update or delete on table "river" violates foreign key constraint "town_river_fkey" on table "town"',
        "DELETE FROM river WHERE name = 'Elbe'",
    ),
    *each(POSTGRESQL, '23505 duplicate key value violates unique constraint "river_pkey"', "INSERT INTO river VALUES ('Elbe')"),
    *each(
        POSTGRESQL,
        '23502 null value in column "name" of relation "town" violates not-null constraint',
        "INSERT INTO town (id) VALUES (9)",
    ),
    *each(
        RECORDED,
        '23514 new row for relation "river" violates check constraint "river_length_km_check"',
        "INSERT INTO river VALUES ('Panke', -29)",
        "UPDATE river SET length_km = 0",
    ),
    *each(
        RECORDED,
        '23514 value for domain short violates check constraint "short_check"',
        "UPDATE river SET code = 'much too long' WHERE name = 'Isar'",
        "SELECT 'much too long'::short",
    ),
    *each(RECORDED, '42704 type "mood" does not exist', "SELECT 'fine'::mood"),
    # What is locked
    *each(
        RECORDED,
        "SELECT 1",
        "SELECT name FROM river WHERE name = 'Isar' FOR UPDATE",
        "SELECT 1 FROM town t WHERE id = 1 FOR KEY SHARE OF t",
    ),
    # What is refused
    *each(
        RECORDED,
        LOCKING,
        "SELECT * FROM thing FOR SHARE SKIP LOCKED",
        "SELECT * FROM (SELECT 1 FROM thing FOR NO KEY UPDATE NOWAIT) x",
        "WITH w AS (SELECT 1 FROM thing FOR SHARE) SELECT * FROM w",
    ),
    *each(
        RECORDED,
        "0A000 TABLESAMPLE clause not supported",
        "SELECT 1 FROM thing t TABLESAMPLE BERNOULLI (10) REPEATABLE (1)",
        "DELETE FROM thing USING holder TABLESAMPLE SYSTEM (1)",
    ),
    *each(
        RECORDED,
        '42704 text search configuration "english" does not exist',
        "SELECT to_tsvector('english', 'rivers and towns')",
        "SELECT 1 FROM town WHERE websearch_to_tsquery('english', 'river') IS NOT NULL",
    ),
    *each(
        RECORDED,
        '42704 text search configuration "french" does not exist',
        "SELECT phraseto_tsquery('french', 'x')",
        "SELECT to_tsvector('french'::regconfig, 'x')",
    ),
    *each(POSTGREST, "SELECT 1", "SELECT to_tsvector('simple', 'a b') @@ plainto_tsquery('simple', 'b')"),
    *each(ISSUES, "0A000 function pg_try_advisory_lock not supported", "SELECT pg_catalog.pg_try_advisory_lock(1, 2)"),
    *each(WORDED_AFTER, "42809 sys.wait_for_job(unknown) is a procedure", "SELECT sys.wait_for_job('x')"),
    *each(LINTER, "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL"),
    *each(SQL_FEATURES, "EXPLAIN", "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT 1", "EXPLAIN INSERT INTO thing SELECT 1"),
    *each(SQL_FEATURES, "ANALYZE", "ANALYZE public.thing", "ANALYZE thing, holder"),
    *each(WORDED_AFTER, "0A000 unsupported ANALYZE statement", "ANALYZE"),
    *each(WORDED_AFTER, "0A000 unsupported COPY statement", "COPY thing FROM '/tmp/x'", "COPY thing TO PROGRAM 'cat'"),
]
