-- Comes behind each lane's own statements, which put something into `own`.
BEGIN;
INSERT INTO cities VALUES (1, 'Ulm', 1.25e5), (2, 'Bonn', 330000), (3, 'Kiel', NULL), (4, 'Ésbjerg', 7);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO people SELECT i, printf('%s%d', substr('annaberthacarldoraemil', i % 17 + 1, 4 + i % 3), i * 7919 % 1000),
  1900 + i * 31 % 110, nullif(i % 5, 4) FROM n;
COMMIT;
CREATE INDEX by_name ON people (name COLLATE NOCASE);
CREATE INDEX by_city ON people (city, born DESC);
ANALYZE;
SELECT count(*), sum(born), avg(born), min(name), max(name), total(city), group_concat(DISTINCT city) FROM people;
SELECT c.name, count(*), round(avg(p.born), 3), min(p.name) FROM people p JOIN cities c ON c.id = p.city
  GROUP BY c.id HAVING count(*) > 10 ORDER BY 2 DESC, 1;
SELECT p.id, p.name, coalesce(c.name, 'nowhere') FROM people p LEFT JOIN cities c ON c.id = p.city
  WHERE p.name LIKE 'B%1_' ORDER BY p.name COLLATE NOCASE, p.id LIMIT 8 OFFSET 3;
EXPLAIN QUERY PLAN SELECT * FROM people WHERE city = 2 AND born > 1990;
SELECT name, born, rank() OVER (PARTITION BY city ORDER BY born, id), lag(name, 1, '-') OVER (ORDER BY id) FROM people
  WHERE id BETWEEN 100 AND 106;
WITH RECURSIVE fib(n, a, b) AS (VALUES (0, 0, 1) UNION ALL SELECT n + 1, b, a + b FROM fib WHERE n < 80)
SELECT n, a FROM fib WHERE n % 20 = 0;
SELECT count(*) FROM people WHERE name GLOB '[a-c]*[0-4]' AND id IN (SELECT id FROM people WHERE born % 2);
SAVEPOINT before;
UPDATE people SET city = 3 WHERE id % 500 = 0;
DELETE FROM people WHERE id > 2500;
SELECT count(*), (SELECT count(*) FROM log) FROM people;
ROLLBACK TO before;
SELECT count(*), (SELECT count(*) FROM log) FROM people;
INSERT INTO people (id, name) VALUES (1, 'again');
INSERT INTO people (id, name) VALUES (NULL, NULL);
INSERT INTO cities VALUES (9, 'Ulm', 0) ON CONFLICT (name) DO UPDATE SET size = size + 0.5;
SELECT name, size, typeof(size), quote(name), hex(name), upper(name), length(name) FROM cities ORDER BY id;
SELECT abs(-7), 7 / 2, 7 / 2.0, 7 % 3, 1e100, 9223372036854775807 + 1, 'a' || 1, 1 = 1.0, NULL IS NULL, 0.1 + 0.2;
SELECT date(0, 'unixepoch'), strftime('%Y-%j %H:%M', '2024-02-29 13:45', '+1 year'), julianday('2000-01-01');
SELECT json_extract('{"a": [1, {"b": "x"}]}', '$.a[1].b'), json_group_array(id) FROM cities;
SELECT no_such_column FROM people;
.mode column
SELECT word, count(*) AS times FROM own GROUP BY word ORDER BY times DESC, word LIMIT 5;
PRAGMA integrity_check;
