-- Virtual hubs, their users, join links, and the one administrator.
-- `key` is a name's form for comparison (auth/names.py); times are seconds since 1970.

CREATE TABLE hubs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    online INTEGER NOT NULL DEFAULT 1 CHECK (online IN (0, 1)),
    subnet4 TEXT NOT NULL UNIQUE,            -- "10.81.7.0/24"
    subnet6 TEXT NOT NULL UNIQUE,            -- "fd3c:1:2::/64"
    host_port TEXT UNIQUE,                   -- interface on the hub machine; NULL = none
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('password', 'anonymous')),
    sha0 BLOB CHECK (sha0 IS NULL OR length(sha0) = 20),  -- password-equivalent: generated passwords, or asked for by name
    argon2 TEXT,                             -- chosen passwords
    number INTEGER,                          -- last part of both assigned addresses; NULL = none assigned
    note TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    last_login_at REAL,
    UNIQUE (hub_id, key),
    UNIQUE (hub_id, number),
    CHECK (kind = 'password' OR (sha0 IS NULL AND argon2 IS NULL))
) STRICT;

CREATE TABLE invites (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),  -- SHA-256 of the token
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL,
    used_hash BLOB,                          -- SHA-0 form of the password that was set with it
    revoked_at REAL
) STRICT;

CREATE INDEX invites_by_user ON invites (user_id);

CREATE TABLE admin (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    argon2 TEXT NOT NULL,
    one_time INTEGER NOT NULL CHECK (one_time IN (0, 1)),  -- 1 = the printed secret, to be replaced at the first sign-in
    changed_at REAL NOT NULL
) STRICT;
