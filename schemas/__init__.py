"""Event and result types: Avro schemas, their columnar codec, the registry client, and the declarations of pipelines."""
