PRAGMA application_id = 1919249529;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE attempt (
            delivery_id INTEGER NOT NULL REFERENCES delivery,
            n INTEGER NOT NULL,
            "trigger" TEXT NOT NULL,
            started_at INTEGER NOT NULL,
            duration_ms INTEGER NOT NULL,
            method TEXT,                -- NULL when no request could be made
            url TEXT,
            request_headers TEXT,
            status INTEGER,             -- NULL when no response came
            response_headers TEXT,
            response_body BLOB,
            truncated INTEGER,
            error_code TEXT,
            error_message TEXT,
            PRIMARY KEY (delivery_id, n)
        ) STRICT
        ;
INSERT INTO "attempt" VALUES(3765804968851645256,1,'initial',1795675739698,4,'POST','http://127.0.0.1:19097/gone','[["Content-Type","application/json"],["User-Agent","relay/0.1.0"],["webhook-id","dlv_01M8B9TNHEDMD42QQJYBMPZ6T5"],["webhook-timestamp","1795675739"],["X-Relay-Source","blog"],["X-Relay-Event","entry.publish"],["X-Relay-Attempt","1"],["X-Relay-Hops","1"]]',NULL,NULL,NULL,NULL,'connect_error','no connection: Connection refused');
INSERT INTO "attempt" VALUES(3765804968851645258,1,'initial',1795675739698,5,'POST','http://127.0.0.1:19097/lane','[["Content-Type","application/json"],["User-Agent","relay/0.1.0"],["webhook-id","dlv_01M8B9TNHEDMD52QQJYBMPZ6T5"],["webhook-timestamp","1795675739"],["X-Relay-Source","blog"],["X-Relay-Event","entry.publish"],["X-Relay-Attempt","1"],["X-Relay-Hops","1"]]',NULL,NULL,NULL,NULL,'connect_error','no connection: Connection refused');
INSERT INTO "attempt" VALUES(3765804968851645255,1,'initial',1795675739698,9,'POST','http://127.0.0.1:19098/no','[["Content-Type","application/json"],["User-Agent","relay/0.1.0"],["webhook-id","dlv_01M8B9TNHEDMD3JQQJYBMPZ6T5"],["webhook-timestamp","1795675739"],["X-Relay-Source","blog"],["X-Relay-Event","entry.publish"],["X-Relay-Attempt","1"],["X-Relay-Hops","1"]]',400,'[["Content-Type","application/json; charset=utf-8"],["Content-Length","19"],["Date","Thu, 26 Nov 2026 06:48:59 GMT"],["Server","Python/3.11 aiohttp/3.14.5"]]',X'7B227265636569766564223A2066616C73657D',0,'refused','HTTP 400: the destination refuses this event');
INSERT INTO "attempt" VALUES(3765804968851645254,1,'initial',1795675739697,10,'POST','http://127.0.0.1:19099/ok','[["Content-Type","application/json"],["User-Agent","relay/0.1.0"],["webhook-id","dlv_01M8B9TNHEDMD32QQJYBMPZ6T5"],["webhook-timestamp","1795675739"],["X-Relay-Source","blog"],["X-Relay-Event","entry.publish"],["X-Relay-Attempt","1"],["X-Relay-Hops","1"]]',200,'[["Content-Type","application/json; charset=utf-8"],["Content-Length","18"],["Date","Thu, 26 Nov 2026 06:48:59 GMT"],["Server","Python/3.11 aiohttp/3.14.5"]]',X'7B227265636569766564223A20747275657D',0,NULL,NULL);
INSERT INTO "attempt" VALUES(3765804971192060703,1,'initial',1795675740812,5,'POST','http://127.0.0.1:19097/gone','[["Content-Type","application/json"],["User-Agent","relay/0.1.0"],["webhook-id","dlv_01M8B9TPMADHCFJQQJYBMPZ6T5"],["webhook-timestamp","1795675740"],["X-Relay-Source","news"],["X-Relay-Event","api-update"],["X-Relay-Attempt","1"],["X-Relay-Hops","1"]]',NULL,NULL,NULL,NULL,'connect_error','no connection: Connection refused');
CREATE TABLE body (event_id INTEGER PRIMARY KEY REFERENCES event, content BLOB NOT NULL) STRICT;
INSERT INTO "body" VALUES(3765804968851645253,X'7B226576656E74223A22656E7472792E7075626C697368222C22637265617465644174223A22323032362D31312D32335432303A30353A35382E3737395A222C226D6F64656C223A2261727469636C65222C22756964223A226170693A3A61727469636C652E61727469636C65222C22656E747279223A7B226964223A322C22646F63756D656E744964223A22647763786761616865313231626D366D726E6C30756C3461222C227469746C65223A2275706461746564222C22626F6479223A223C7363726970743E783C2F7363726970743E202620612F625C6E6C696E655C74746162222C22726174696E67223A312C227669657773223A2239303037313939323534373430393932222C22726174696F223A31652B32312C226D657461223A7B2264656570223A7B2261223A5B7B2262223A7B2263223A5B312C322E352C31652D372C302C31323334353637383930313233343536373030305D7D7D5D7D2C226B5C226579223A6E756C6C2C22223A747275657D2C22637265617465644174223A22323032362D31312D32335432303A30353A35382E3137305A222C22757064617465644174223A22323032362D31312D32335432303A30353A35382E3433385A222C227075626C69736865644174223A22323032362D31312D32335432303A30353A35382E3730335A222C226C6F63616C65223A22656E222C22636F766572223A6E756C6C2C2261646472657373223A7B226964223A312C22646F63756D656E744964223A22766F33337970353764307635723869797033677769673471222C2263697479223A225AC3BC7269636820E2809420F09F9880222C22706F7374616C5F636F6465223A6E756C6C2C2266756C6C5F6E616D65223A225061726973222C2267656F6C6F636174696F6E223A7B226C6174223A34382E383536362C226C6E67223A327D2C22637265617465644174223A22323032362D31312D32335432303A30353A35372E3535345A222C22757064617465644174223A22323032362D31312D32335432303A30353A35372E3831365A222C227075626C69736865644174223A22323032362D31312D32335432303A30353A35372E3831325A227D7D7D');
INSERT INTO "body" VALUES(3765804971192060702,X'7B2274797065223A226170692D757064617465222C226D6173746572526566223A225836716E2D52494141434D4156676531222C2272656C6561736573223A7B7D2C226D61736B73223A7B7D2C2274616773223A7B7D2C226578706572696D656E7473223A7B7D2C22646F63756D656E7473223A5B2258364C636A68414141423841554A7762225D2C22646F6D61696E223A22796F75722D7265706F2D6E616D65222C2261706955726C223A2268747470733A2F2F796F75722D7265706F2D6E616D652E707269736D69632E696F2F617069222C22736563726574223A6E756C6C7D');
INSERT INTO "body" VALUES(3765804974048521809,X'7B226F7065726174696F6E223A227075626C697368222C2264617461223A7B225F5F747970656E616D65223A22506F7374222C22636F766572496D616765223A7B225F5F747970656E616D65223A224173736574222C226964223A22636B6164726378346730307077303135323563356432653537227D2C22637265617465644174223A22323032312D31312D32345432323A32373A35382E3730323034342B30303A3030222C22637265617465644279223A7B225F5F747970656E616D65223A2255736572222C226964223A227531227D2C226964223A22636B6164726378346730307077303135323563356432653536222C226C6F63616C697A6174696F6E73223A5B7B226C6F63616C65223A22656E222C227469746C65223A2248656C6C6F227D2C7B226C6F63616C65223A226465222C227469746C65223A224772C3BC657A69203C623E263C2F623E227D5D2C227075626C69736865644174223A6E756C6C2C227374616765223A225055424C4953484544222C22757064617465644174223A22323032312D31312D32395431383A32313A35372E3635323231362B30303A3030227D7D');
CREATE TABLE "delivery" (
            id INTEGER PRIMARY KEY,
            event_id INTEGER NOT NULL REFERENCES event,
            route TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending'
                CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed' OR state = 'held'
                    OR state = 'merged' OR state = 'cancelled'),
            held_reason TEXT CHECK (held_reason = 'removed' OR held_reason = 'disabled' OR held_reason = 'paused'
                OR held_reason = 'hand'),
            held_at INTEGER,
            due INTEGER NOT NULL,
            first_due INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            "trigger" TEXT NOT NULL,
            retried INTEGER NOT NULL DEFAULT 0,   -- 1: waits for another try, and leaves slots to first attempts
            lane TEXT,                            -- what keeps its order with others of the same; NULL: nothing
            blocked INTEGER NOT NULL DEFAULT 0,   -- 1: another one of its lane comes first
            taken INTEGER NOT NULL DEFAULT 0,     -- 1: under order latest, being sent: nothing may take it up
            "window" TEXT,                        -- of a carrier: what it collects
            open INTEGER NOT NULL DEFAULT 0,      -- 1: it still takes events
            events INTEGER NOT NULL DEFAULT 1,    -- of a carrier: how many it has
            bytes INTEGER NOT NULL DEFAULT 0,     -- of a carrier: their bodies
            code INTEGER,
            error_code TEXT,
            error_message TEXT,
            duration_ms INTEGER,
            merged_into INTEGER REFERENCES delivery,
            updated_at INTEGER NOT NULL,
            CHECK ((state = 'held') = (held_reason IS NOT NULL)),
            CHECK ((state = 'held') = (held_at IS NOT NULL)),
            CHECK ((state = 'merged') = (merged_into IS NOT NULL))
        ) STRICT
        ;
INSERT INTO "delivery" VALUES(3765804968851645254,3765804968851645253,'delivered','delivered',NULL,NULL,1795675739694,1795675739694,1,1,'retry',1,NULL,0,0,NULL,0,1,0,200,NULL,NULL,10,NULL,1795675739708);
INSERT INTO "delivery" VALUES(3765804968851645255,3765804968851645253,'refused','failed',NULL,NULL,1795675739694,1795675739694,1,1,'retry',1,NULL,0,0,NULL,0,1,0,400,'refused','HTTP 400: the destination refuses this event',9,NULL,1795675739707);
INSERT INTO "delivery" VALUES(3765804968851645256,3765804968851645253,'unreachable','pending',NULL,NULL,1795679312179,1795675739694,1,1,'retry',1,NULL,0,0,NULL,0,1,0,NULL,'connect_error','no connection: Connection refused',4,NULL,1795675739702);
INSERT INTO "delivery" VALUES(3765804968851645257,3765804968851645253,'windowed','pending',NULL,NULL,1795679340810,1795679340810,0,0,'initial',0,NULL,0,0,'["debounce"]',1,2,1029,NULL,NULL,NULL,NULL,NULL,1795675739694);
INSERT INTO "delivery" VALUES(3765804968851645258,3765804968851645253,'ordered','pending',NULL,NULL,1795679231371,1795675739694,1,1,'retry',1,'["blog",null,null,"en","article","dwcxgaahe121bm6mrnl0ul4a"]',0,0,NULL,0,1,0,NULL,'connect_error','no connection: Connection refused',5,NULL,1795675739703);
INSERT INTO "delivery" VALUES(3765804968851645259,3765804968851645253,'paused','held','paused',1795675739694,1795675739694,1795675739694,0,0,'initial',0,NULL,0,0,NULL,0,1,0,NULL,NULL,NULL,NULL,NULL,1795675739694);
INSERT INTO "delivery" VALUES(3765804971192060703,3765804971192060702,'unreachable','pending',NULL,NULL,1795678753232,1795675740810,1,1,'retry',1,NULL,0,0,NULL,0,1,0,NULL,'connect_error','no connection: Connection refused',5,NULL,1795675740818);
INSERT INTO "delivery" VALUES(3765804971192060704,3765804971192060702,'windowed','merged',NULL,NULL,1795679340810,1795679340810,0,0,'initial',0,NULL,0,0,NULL,0,1,0,NULL,NULL,NULL,NULL,3765804968851645257,1795675740810);
CREATE TABLE event (
            id INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            type TEXT NOT NULL,
            event TEXT,
            received_at INTEGER NOT NULL,
            occurred_at INTEGER,
            environment TEXT,
            branch TEXT,
            locale TEXT,
            model TEXT,
            stage TEXT,
            action TEXT,
            entry_id TEXT,
            changes TEXT,               -- JSON; NULL when the one change is what the columns say
            extra TEXT,                 -- JSON; NULL when there is nothing
            headers TEXT NOT NULL,      -- JSON
            sha256 BLOB NOT NULL,
            size INTEGER NOT NULL,
            matched INTEGER NOT NULL    -- how many deliveries it was owed when it was accepted
        ) STRICT
        ;
INSERT INTO "event" VALUES(3765804968851645253,'blog','strapi','entry.publish',1795675739694,1795464358779,NULL,NULL,'en','article','published','publish','dwcxgaahe121bm6mrnl0ul4a',NULL,'{"uid":"api::article.article"}','[["Host","127.0.0.1:18080"],["X-Strapi-Event","entry.publish"],["Content-Type","application/json"],["Accept","*/*"],["Accept-Language","*"],["Sec-Fetch-Mode","cors"],["User-Agent","node"],["Accept-Encoding","gzip, deflate"],["Authorization","***"],["Content-Length","803"]]',X'33C36891DD7223572991E661EB2B97C9D3B656A2DA92C45CC57A2B5F9E4BC8D7',803,6);
INSERT INTO "event" VALUES(3765804971192060702,'news','prismic','api-update',1795675740810,NULL,NULL,NULL,NULL,'document','published','change','X6LcjhAAAB8AUJwb',NULL,'{"domain":"your-repo-name","master_ref":"X6qn-RIAACMAVge1"}','[["Host","127.0.0.1:18080"],["Content-Type","application/json"],["Accept","*/*"],["Accept-Encoding","gzip, deflate"],["User-Agent","Python/3.11 aiohttp/3.14.5"],["Content-Length","246"]]',X'1448B304FA3C982BAA52AE1BE8B294E98C4B4C04BD62EECA4A69A8EC31671DD3',226,2);
INSERT INTO "event" VALUES(3765804974048521809,'shop','hygraph','publish',1795675742172,1795675742166,'master',NULL,NULL,'Post','published','publish','ckadrcx4g00pw01525c5d2e56',NULL,'{"locales":["en","de"]}','[["Host","127.0.0.1:18080"],["Content-Type","application/json"],["gcms-signature","***"],["Accept","*/*"],["Accept-Encoding","gzip, deflate"],["User-Agent","Python/3.11 aiohttp/3.14.5"],["Content-Length","424"]]',X'4638ED1E2D506D5CA03D9812C0024F76A5D19F3AD70411D4AF445DC8CF570A9A',424,0);
CREATE TABLE known (
            kind TEXT NOT NULL,         -- route, source, order
            name TEXT NOT NULL,
            data TEXT NOT NULL,         -- JSON
            PRIMARY KEY (kind, name)
        ) STRICT, WITHOUT ROWID
        ;
INSERT INTO "known" VALUES('order','ordered','{"order":"entry"}');
INSERT INTO "known" VALUES('route','delivered','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":0,"last_success_at":null,"last_error":null,"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"a9a7"}');
INSERT INTO "known" VALUES('route','off','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":0,"last_success_at":null,"last_error":null,"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"d5c6"}');
INSERT INTO "known" VALUES('route','ordered','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":1,"last_success_at":null,"last_error":["connect_error","no connection: Connection refused"],"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"6ae7"}');
INSERT INTO "known" VALUES('route','paused','{"state":"paused","reason":"a freeze","since":1795675738373,"paused_by":"hand","consecutive_failures":0,"last_success_at":null,"last_error":null,"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"1707"}');
INSERT INTO "known" VALUES('route','refused','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":0,"last_success_at":null,"last_error":null,"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"ca91"}');
INSERT INTO "known" VALUES('route','unreachable','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":2,"last_success_at":null,"last_error":["connect_error","no connection: Connection refused"],"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"2ac1"}');
INSERT INTO "known" VALUES('route','windowed','{"state":"healthy","reason":null,"since":null,"paused_by":null,"consecutive_failures":0,"last_success_at":null,"last_error":null,"probe_at":null,"probe_wait_ms":30000,"probe_delay_ms":30000,"last_probe":null,"slow_start":false,"fingerprint":"1865"}');
INSERT INTO "known" VALUES('source','blog','{"configured_at":1795675737555,"last_event_at":1795675745515,"silent_since":null,"rejections":1,"last_rejection":"the bearer token is wrong"}');
INSERT INTO "known" VALUES('source','news','{"configured_at":1795675737555,"last_event_at":1795675740812,"silent_since":null,"rejections":0,"last_rejection":null}');
INSERT INTO "known" VALUES('source','shop','{"configured_at":1795675737555,"last_event_at":1795675742177,"silent_since":null,"rejections":0,"last_rejection":null}');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('store','98783366961142597');
CREATE TABLE rejection (
            id INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            at INTEGER NOT NULL,
            status INTEGER NOT NULL,
            reason TEXT NOT NULL,
            client TEXT NOT NULL,
            headers TEXT NOT NULL
        ) STRICT
        ;
INSERT INTO "rejection" VALUES(3765804981947866358,'blog',1795675745939,401,'the bearer token is wrong','127.0.0.1','[["Host","localhost:18080"],["User-Agent","curl/7.88.1"],["Accept","*/*"],["Authorization","***"],["Content-Length","2"],["Content-Type","application/x-www-form-urlencoded"]]');
CREATE TABLE seen (
            key BLOB PRIMARY KEY,
            value BLOB NOT NULL,
            event_id INTEGER NOT NULL REFERENCES event,
            until INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        ;
INSERT INTO "seen" VALUES(X'01A20A03EB7B2FD07D02D0DA747F9074',X'',3765804968851645253,1795679339694);
INSERT INTO "seen" VALUES(X'01A2169D5FD6F3CF96694CD576780AAD',X'',3765804974048521809,1795677542172);
INSERT INTO "seen" VALUES(X'EB31DD150F73B26C017946DB1D5F9B80',X'',3765804971192060702,1795679340810);
CREATE INDEX event_unmatched ON event (id) WHERE matched = 0;
CREATE INDEX rejection_source ON rejection (source);
CREATE INDEX delivery_pending ON delivery (route, blocked, retried, due, id) WHERE state = 'pending';
CREATE INDEX delivery_lane ON delivery (route, lane, blocked, id) WHERE lane IS NOT NULL AND (state = 'pending' OR state = 'held');
CREATE INDEX delivery_told ON delivery (route, lane, id) WHERE lane IS NOT NULL AND state = 'delivered';
CREATE UNIQUE INDEX delivery_window ON delivery (route, "window") WHERE open = 1;
CREATE INDEX delivery_held ON delivery (route, held_reason) WHERE state = 'held';
CREATE INDEX delivery_hand ON delivery (id) WHERE held_reason = 'hand';
CREATE INDEX delivery_event ON delivery (event_id);
CREATE INDEX delivery_merged ON delivery (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX delivery_taken ON delivery (id) WHERE taken = 1;
CREATE INDEX seen_until ON seen (until);
COMMIT;
