"""One MQTT session over aiomqtt, as both sides need it."""
