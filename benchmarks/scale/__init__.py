"""How cost, memory, pauses and restores grow with the state: engines without Kafka."""
