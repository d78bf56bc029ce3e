-- The shell reads this before its input.
CREATE TABLE own (word TEXT);
CREATE TABLE cities (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size REAL);
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, born INTEGER, city INTEGER REFERENCES cities);
CREATE TABLE log (what TEXT, id INTEGER);
CREATE TRIGGER moved AFTER UPDATE OF city ON people BEGIN INSERT INTO log VALUES ('moved', new.id); END;
