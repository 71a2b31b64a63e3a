BEGIN TRANSACTION;
CREATE TABLE assignments (
	rollout VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	stage INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	place FLOAT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	ready BOOLEAN NOT NULL, 
	asking BOOLEAN NOT NULL, 
	phase VARCHAR(16), 
	reasons JSON NOT NULL, 
	nonce VARCHAR(64), 
	grant VARCHAR(16) NOT NULL, 
	grant_nonce VARCHAR(64), 
	close_reason VARCHAR NOT NULL, 
	outcome_digest VARCHAR(64), 
	code VARCHAR(32), 
	detail VARCHAR NOT NULL, 
	log VARCHAR NOT NULL, 
	from_version VARCHAR(64), 
	running_version VARCHAR(64), 
	resumed BOOLEAN NOT NULL, 
	percent FLOAT NOT NULL, 
	bytes_fetched INTEGER NOT NULL, 
	bytes_copied INTEGER DEFAULT '0' NOT NULL, 
	bytes_delta INTEGER DEFAULT '0' NOT NULL, 
	bytes_present INTEGER DEFAULT '0' NOT NULL, 
	bytes_total INTEGER DEFAULT '0' NOT NULL, 
	rate_bytes_s FLOAT DEFAULT '0' NOT NULL, 
	offered_at VARCHAR(27), 
	offer_expires VARCHAR(27), 
	updated_at VARCHAR(27), 
	PRIMARY KEY (rollout, device)
);
INSERT INTO "assignments" VALUES('r-1','d0',0,1,0.0,'pending',0,0,NULL,'[]',NULL,'none',NULL,'',NULL,NULL,'','',NULL,NULL,0,0.0,0,0,0,0,0,0.0,NULL,NULL,NULL);
INSERT INTO "assignments" VALUES('r-1','d1',0,1,0.2,'offered',0,0,NULL,'[]',NULL,'download',NULL,'',NULL,NULL,'','',NULL,NULL,0,0.0,0,0,0,0,0,0.0,'2026-11-24T00:00:00.000000Z','2026-11-25T00:00:00.000000Z',NULL);
INSERT INTO "assignments" VALUES('r-1','d2',0,1,0.4,'verifying',0,0,NULL,'[]',NULL,'activate',NULL,'',NULL,NULL,'','',NULL,NULL,0,0.0,0,0,0,0,0,0.0,'2026-11-24T00:00:00.000000Z',NULL,'2026-11-24T00:00:05.000000Z');
INSERT INTO "assignments" VALUES('r-1','d3',0,1,0.6,'rolled_back',0,0,NULL,'[]',NULL,'closed',NULL,'',NULL,'E_HEALTH','','',NULL,NULL,0,0.0,0,0,0,0,0,0.0,'2026-11-24T00:00:00.000000Z',NULL,'2026-11-24T00:00:00.000000Z');
INSERT INTO "assignments" VALUES('r-1','d4',0,1,0.8,'succeeded',0,0,NULL,'[]',NULL,'closed',NULL,'',NULL,NULL,'','',NULL,NULL,0,0.0,0,0,0,0,0,0.0,'2026-11-24T00:00:00.000000Z',NULL,'2026-11-24T00:00:00.000000Z');
CREATE TABLE behind (
	broker VARCHAR(64) NOT NULL, 
	release VARCHAR(140) NOT NULL, 
	since VARCHAR(27) NOT NULL, 
	PRIMARY KEY (broker, release)
);
CREATE TABLE broker_releases (
	broker VARCHAR(64) NOT NULL, 
	release VARCHAR(140) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	missing_bytes INTEGER NOT NULL, 
	why VARCHAR NOT NULL, 
	retry_at VARCHAR(27), 
	asked_at VARCHAR(27), 
	PRIMARY KEY (broker, release)
);
CREATE TABLE brokers (
	name VARCHAR(64) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "brokers" VALUES('main');
CREATE TABLE certificates (
	serial VARCHAR(40) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	revoked_at VARCHAR(27), 
	PRIMARY KEY (serial)
);
CREATE TABLE chunk_audits (
	broker VARCHAR(64) NOT NULL, 
	heal_after INTEGER NOT NULL, 
	heal_up_to INTEGER NOT NULL, 
	began_at VARCHAR(27), 
	"after" VARCHAR NOT NULL, 
	PRIMARY KEY (broker)
);
CREATE TABLE claims (
	name VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	certificate_serial VARCHAR NOT NULL, 
	approval VARCHAR(8) NOT NULL, 
	any_product VARCHAR(64), 
	any_hardware VARCHAR(64), 
	per_minute INTEGER NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	expires VARCHAR(27) NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE counts (
	rollout VARCHAR(64) NOT NULL, 
	stage INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	n INTEGER NOT NULL, 
	PRIMARY KEY (rollout, stage, "key")
);
INSERT INTO "counts" VALUES('r-1',0,'state:pending',1);
INSERT INTO "counts" VALUES('r-1',0,'state:offered',1);
INSERT INTO "counts" VALUES('r-1',0,'offered',4);
INSERT INTO "counts" VALUES('r-1',0,'state:verifying',1);
INSERT INTO "counts" VALUES('r-1',0,'state:rolled_back',1);
INSERT INTO "counts" VALUES('r-1',0,'state:succeeded',1);
CREATE TABLE devices (
	id VARCHAR(64) NOT NULL, 
	product VARCHAR(64) NOT NULL, 
	hardware VARCHAR(64) NOT NULL, 
	components JSON NOT NULL, 
	labels JSON NOT NULL, 
	report_key JSON NOT NULL, 
	content_key VARCHAR(44) NOT NULL, 
	certificate_serial VARCHAR NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	enrolled_at VARCHAR(27) NOT NULL, 
	session INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	online BOOLEAN NOT NULL, 
	presence_session INTEGER NOT NULL, 
	last_seen VARCHAR(27), 
	stale_since VARCHAR(27), 
	refusals JSON NOT NULL, 
	heard_at VARCHAR(27), 
	silent BOOLEAN NOT NULL, 
	duplicate_since VARCHAR(27), 
	instances JSON NOT NULL, 
	closed_at VARCHAR(27), 
	closed_reason VARCHAR NOT NULL, 
	session_ended_at VARCHAR(27), 
	PRIMARY KEY (id), 
	CONSTRAINT device_id_charset CHECK (length(id) BETWEEN 1 AND 64 AND id NOT LIKE '%/%' AND id NOT LIKE '%+%' AND id NOT LIKE '%#%')
);
INSERT INTO "devices" VALUES('d0','gateway','rev-a','{"app": "1.0.0"}','{}','{"keyid": "k"}','x','','enrolled','2026-11-24T00:00:00.000000Z',0,0,0,0,NULL,NULL,'[]','2026-11-24T00:00:00.000000Z',0,NULL,'{}',NULL,'',NULL);
INSERT INTO "devices" VALUES('d1','gateway','rev-a','{"app": "1.0.0"}','{}','{"keyid": "k"}','x','','enrolled','2026-11-24T00:00:00.000000Z',0,0,0,0,NULL,NULL,'[]','2026-11-24T00:00:00.000000Z',0,NULL,'{}',NULL,'',NULL);
INSERT INTO "devices" VALUES('d2','gateway','rev-a','{"app": "1.0.0"}','{}','{"keyid": "k"}','x','','enrolled','2026-11-24T00:00:00.000000Z',0,0,0,0,NULL,NULL,'[]','2026-11-24T00:00:00.000000Z',0,NULL,'{}',NULL,'',NULL);
INSERT INTO "devices" VALUES('d3','gateway','rev-a','{"app": "1.0.0"}','{}','{"keyid": "k"}','x','','enrolled','2026-11-24T00:00:00.000000Z',0,0,0,0,NULL,NULL,'[]','2026-11-24T00:00:00.000000Z',0,NULL,'{}',NULL,'',NULL);
INSERT INTO "devices" VALUES('d4','gateway','rev-a','{"app": "1.0.0"}','{}','{"keyid": "k"}','x','','enrolled','2026-11-24T00:00:00.000000Z',0,0,0,0,NULL,NULL,'[]','2026-11-24T00:00:00.000000Z',0,NULL,'{}',NULL,'',NULL);
CREATE TABLE dirty (
	kind VARCHAR(32) NOT NULL, 
	"key" VARCHAR(140) NOT NULL, 
	broker VARCHAR(64) NOT NULL, 
	since VARCHAR(27) NOT NULL, 
	PRIMARY KEY (kind, "key", broker)
);
CREATE TABLE enrolments (
	id VARCHAR(20) NOT NULL, 
	keyid VARCHAR(64) NOT NULL, 
	claim VARCHAR(64) NOT NULL, 
	serial VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	product VARCHAR(64) NOT NULL, 
	hardware VARCHAR(64) NOT NULL, 
	labels JSON NOT NULL, 
	comes_back BOOLEAN NOT NULL, 
	csr VARCHAR NOT NULL, 
	content_key VARCHAR(44) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason VARCHAR NOT NULL, 
	certificate VARCHAR NOT NULL, 
	asked_at VARCHAR(27) NOT NULL, 
	decided_at VARCHAR(27), 
	PRIMARY KEY (id), 
	UNIQUE (keyid)
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	actor VARCHAR(64) NOT NULL, 
	rollout VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	text VARCHAR NOT NULL, 
	data JSON NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE expected_devices (
	serial VARCHAR(64) NOT NULL, 
	claim VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	product VARCHAR(64) NOT NULL, 
	hardware VARCHAR(64) NOT NULL, 
	labels JSON NOT NULL, 
	PRIMARY KEY (serial), 
	UNIQUE (device)
);
CREATE TABLE expelled (
	device VARCHAR(64) NOT NULL, 
	broker VARCHAR(64) NOT NULL, 
	PRIMARY KEY (device, broker)
);
CREATE TABLE group_members (
	group_name VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	PRIMARY KEY (group_name, device)
);
CREATE TABLE groups (
	name VARCHAR(64) NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE published (
	broker VARCHAR(64) NOT NULL, 
	topic VARCHAR NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	serial INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	payload BLOB, 
	expires VARCHAR(27), 
	since VARCHAR(27), 
	PRIMARY KEY (broker, topic)
);
CREATE TABLE release_chunks (
	release VARCHAR(140) NOT NULL, 
	cid VARCHAR(64) NOT NULL, 
	length INTEGER NOT NULL, 
	PRIMARY KEY (release, cid)
);
CREATE TABLE releases (
	id VARCHAR(140) NOT NULL, 
	product VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	component VARCHAR(64) NOT NULL, 
	path VARCHAR(160) NOT NULL, 
	length INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	counter INTEGER NOT NULL, 
	info JSON NOT NULL, 
	wrapped_key BLOB NOT NULL, 
	image_bytes INTEGER NOT NULL, 
	chunk_bytes INTEGER NOT NULL, 
	published_bytes INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	imported_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
CREATE TABLE removals (
	broker VARCHAR(64) NOT NULL, 
	serial INTEGER NOT NULL, 
	topic VARCHAR NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (broker, serial)
);
CREATE TABLE renewals (
	device VARCHAR(64) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	session INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	report_key JSON NOT NULL, 
	content_key VARCHAR(44) NOT NULL, 
	certificate VARCHAR NOT NULL, 
	certificate_serial VARCHAR NOT NULL, 
	expires VARCHAR(27) NOT NULL, 
	issued_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (device)
);
CREATE TABLE rollouts (
	id VARCHAR(64) NOT NULL, 
	release VARCHAR(140) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	spec JSON NOT NULL, 
	reason VARCHAR NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	started_at VARCHAR(27), 
	ended_at VARCHAR(27), 
	announcement_expires VARCHAR(27), 
	offers_made INTEGER NOT NULL, 
	pace_credit FLOAT NOT NULL, 
	pace_at VARCHAR(27), 
	version INTEGER NOT NULL, 
	halts INTEGER NOT NULL, 
	acknowledged JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "rollouts" VALUES('r-1','gateway/1.1.0','running','{"release": "gateway/1.1.0", "members": {"group": null, "selector": null}, "stages": [{"name": "all", "group": null, "selector": null, "percent": 100.0}], "success_ratio": 0.95, "min_sample": 1, "soak_s": 60.0, "halt_ratio": 0.1, "halt_min_sample": 3, "halt_count": null, "pace_per_minute": 30.0, "start_at": null, "policy": {"min_battery_percent": null, "require_approval": null, "allow_in_use": null, "require_way_back": null, "min_interval_s": null}}','','2026-11-24T00:00:00.000000Z','2026-11-24T00:00:00.000000Z',NULL,NULL,0,0.0,NULL,2,0,'{"0": [1, 2]}');
CREATE TABLE settings (
	"key" VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "settings" VALUES('schema','2');
INSERT INTO "settings" VALUES('database','bce26389f201b63a');
CREATE TABLE stages (
	rollout VARCHAR(64) NOT NULL, 
	position INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	members INTEGER NOT NULL, 
	opened_at VARCHAR(27), 
	soaking_since VARCHAR(27), 
	passed_at VARCHAR(27), 
	PRIMARY KEY (rollout, position)
);
INSERT INTO "stages" VALUES('r-1',0,'all','open',5,'2026-11-24T00:00:00.000000Z',NULL,NULL);
CREATE INDEX devices_duplicate ON devices (id) WHERE state = 'enrolled' AND duplicate_since IS NOT NULL;
CREATE INDEX devices_stale ON devices (id) WHERE state = 'enrolled' AND stale_since IS NOT NULL;
CREATE INDEX devices_falling_silent ON devices (heard_at) WHERE state = 'enrolled' AND silent = 0;
CREATE INDEX devices_to_expel ON devices (closed_at) WHERE state <> 'enrolled' AND session_ended_at IS NULL;
CREATE INDEX devices_silent ON devices (id) WHERE state = 'enrolled' AND silent = 1;
CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX certificates_by_device ON certificates (device);
CREATE INDEX group_members_by_device ON group_members (device);
CREATE INDEX release_chunks_by_cid ON release_chunks (cid);
CREATE INDEX rollouts_by_release ON rollouts (release);
CREATE INDEX assignments_to_offer ON assignments (rollout, stage, state, ready, place);
CREATE INDEX assignments_by_expiry ON assignments (offer_expires);
CREATE INDEX assignments_by_device ON assignments (device);
CREATE INDEX assignments_open_offers ON assignments (rollout, grant, offer_expires);
CREATE INDEX assignments_asking ON assignments (rollout, asking);
CREATE INDEX dirty_by_since ON dirty (broker, kind, since);
CREATE INDEX published_by_expiry ON published (broker, expires);
CREATE INDEX published_by_serial ON published (broker, serial);
CREATE INDEX events_by_rollout ON events (rollout, id);
CREATE INDEX events_by_device ON events (device, id);
CREATE INDEX expected_devices_by_claim ON expected_devices (claim);
CREATE INDEX enrolments_by_state ON enrolments (state, asked_at);
CREATE INDEX enrolments_by_claim ON enrolments (claim, state);
COMMIT;
