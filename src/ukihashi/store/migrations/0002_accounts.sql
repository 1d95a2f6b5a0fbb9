-- Groups, policies, certificates, limits; what a hub says and allows; whom it trusts; what it joins.
-- `policy` is a `wire.policy.Policy` as JSON, NULL = none of its own.

CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    real_name TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    policy TEXT,
    UNIQUE (hub_id, key)
) STRICT;

CREATE TABLE users_new (
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    group_id INTEGER REFERENCES groups (id) ON DELETE SET NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('password', 'anonymous', 'certificate', 'issued')),
    sha0 BLOB CHECK (sha0 IS NULL OR length(sha0) = 20),  -- password-equivalent: generated passwords, or asked for by name
    argon2 TEXT,                             -- chosen passwords
    certificate BLOB,                        -- kind 'certificate': this one, DER
    common_name TEXT,                        -- kind 'issued': by a CA that the hub trusts; NULL = any name
    serial BLOB,                             -- kind 'issued': NULL = any serial number
    number INTEGER,                          -- last part of both assigned addresses; NULL = none assigned
    real_name TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    policy TEXT,
    expires_at REAL,                         -- no login from then on; NULL = never
    quota_bytes INTEGER,                     -- of both directions in a period; NULL = no limit
    quota_days INTEGER NOT NULL DEFAULT 30,  -- length of a period
    period_began_at REAL NOT NULL DEFAULT 0,
    period_bytes INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL DEFAULT 0,
    last_login_at REAL,
    logins INTEGER NOT NULL DEFAULT 0,
    bytes_in INTEGER NOT NULL DEFAULT 0,     -- from the member into the hub, all sessions so far
    frames_in INTEGER NOT NULL DEFAULT 0,
    bytes_out INTEGER NOT NULL DEFAULT 0,
    frames_out INTEGER NOT NULL DEFAULT 0,
    UNIQUE (hub_id, key),
    UNIQUE (hub_id, number),
    CHECK (kind = 'password' OR (sha0 IS NULL AND argon2 IS NULL)),
    CHECK ((kind = 'certificate') = (certificate IS NOT NULL))
) STRICT;

INSERT INTO users_new (id, hub_id, name, key, kind, sha0, argon2, number, note, created_at, updated_at, last_login_at)
    SELECT id, hub_id, name, key, kind, sha0, argon2, number, note, created_at, created_at, last_login_at FROM users;
DROP TABLE users;
ALTER TABLE users_new RENAME TO users;
CREATE INDEX users_by_group ON users (group_id);

ALTER TABLE hubs ADD COLUMN max_sessions INTEGER NOT NULL DEFAULT 0;     -- 0 = no limit
ALTER TABLE hubs ADD COLUMN listed INTEGER NOT NULL DEFAULT 1 CHECK (listed IN (0, 1));  -- told to who asks for names
ALTER TABLE hubs ADD COLUMN banner TEXT NOT NULL DEFAULT '';
ALTER TABLE hubs ADD COLUMN options TEXT NOT NULL DEFAULT '{}';          -- `hub.messages.HubRules` as JSON
ALTER TABLE hubs ADD COLUMN admin_hash BLOB;                             -- hub administrator: SHA0(password); NULL = nobody
ALTER TABLE hubs ADD COLUMN login_hash BLOB;                             -- the same password as user `administrator`'s
ALTER TABLE hubs ADD COLUMN logins INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hubs ADD COLUMN last_login_at REAL;

ALTER TABLE admin ADD COLUMN rpc_hash BLOB;                              -- SHA0(password) for tools of others; NULL = they are refused

CREATE TABLE authorities (                   -- CAs whose certificates a hub takes as proof (kind 'issued')
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    certificate BLOB NOT NULL,               -- DER
    UNIQUE (hub_id, certificate)
) STRICT;

CREATE TABLE revoked (                       -- serial numbers of certificates that are no proof any more
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    serial BLOB NOT NULL,
    UNIQUE (hub_id, serial)
) STRICT;

CREATE TABLE access_rules (                  -- frames: the first that matches decides (`switch.access.Rule` as JSON)
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    priority INTEGER NOT NULL,
    rule TEXT NOT NULL
) STRICT;

CREATE TABLE source_rules (                  -- where logins may come from: the first that matches decides
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    priority INTEGER NOT NULL,
    network TEXT NOT NULL,                   -- "192.0.2.0/24"
    deny INTEGER NOT NULL CHECK (deny IN (0, 1))
) STRICT;

CREATE TABLE cascades (                      -- other hubs that a hub joins as a bridge
    id INTEGER PRIMARY KEY,
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    online INTEGER NOT NULL DEFAULT 1 CHECK (online IN (0, 1)),
    account TEXT NOT NULL,                   -- `card.toml` without secrets
    secrets TEXT NOT NULL DEFAULT '{}',      -- by option
    policy TEXT,                             -- of what comes from there
    created_at REAL NOT NULL,
    UNIQUE (hub_id, key)
) STRICT;
