"""What producers send: models, Avro schemas, reasons, definitions."""
