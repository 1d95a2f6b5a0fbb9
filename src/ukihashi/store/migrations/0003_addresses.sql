-- Addresses and names that a hub gives (`store.address_settings`, `store.leases`).

ALTER TABLE hubs ADD COLUMN addresses TEXT NOT NULL DEFAULT '{}';        -- `store.address_settings.AddressSettings` as JSON
ALTER TABLE hubs ADD COLUMN service_number INTEGER;                      -- last part of the service's own addresses; NULL = none yet

UPDATE hubs SET addresses = '{"dhcp":"off","dns":false,"ra":false,"guard":false}';  -- a hub that ran without goes on so

CREATE TABLE leases (
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,                 -- of the address in the hub's IPv4 subnet
    user_key TEXT NOT NULL,                  -- of whom the station's port is; '' = the hub machine itself
    identity BLOB NOT NULL,                  -- what DHCP knows the station by
    mac BLOB NOT NULL CHECK (length(mac) = 6),
    host TEXT NOT NULL DEFAULT '',           -- the name it gave itself, as a label of the DNS
    kind TEXT NOT NULL CHECK (kind IN ('leased', 'told', 'declined')),
    began_at REAL NOT NULL,                  -- seconds since 1970
    ends_at REAL NOT NULL,
    PRIMARY KEY (hub_id, number)
) STRICT;

CREATE TABLE fixed_addresses (               -- of stations; those of users are `users.number`
    hub_id INTEGER NOT NULL REFERENCES hubs (id) ON DELETE CASCADE,
    mac BLOB NOT NULL CHECK (length(mac) = 6),
    number INTEGER NOT NULL,
    PRIMARY KEY (hub_id, mac),
    UNIQUE (hub_id, number)
) STRICT;
