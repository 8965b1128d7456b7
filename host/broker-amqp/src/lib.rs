//! Durable per-identity message queues in a broker that speaks AMQP 1.0 (OASIS AMQP 1.0).
