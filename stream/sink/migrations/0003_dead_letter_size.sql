-- Of a very large rejected record only the first 512 KiB are kept: payload_bytes says how large it was.

ALTER TABLE dead_letter_rows ${on_cluster} ADD COLUMN IF NOT EXISTS payload_bytes Int64 DEFAULT length(payload) AFTER payload;

CREATE OR REPLACE VIEW dead_letters ${on_cluster} AS
SELECT topic, partition, offset, record_at, reason, field, rule,
    if(schema_id < 0, NULL, schema_id) AS schema_id,
    if(isValidUTF8(d.payload) AND NOT match(d.payload, '[\\x00-\\x08\\x0B\\x0C\\x0E-\\x1F\\x7F]'), 'text', 'base64') AS payload_encoding,
    if(payload_encoding = 'text', d.payload, base64Encode(d.payload)) AS payload,
    d.payload_bytes AS payload_bytes
FROM dead_letter_rows AS d FINAL
WHERE generation = (SELECT max(generation) FROM generations);
