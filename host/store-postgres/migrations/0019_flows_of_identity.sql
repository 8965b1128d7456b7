-- Whoever opens an identity asks whether it has flows, and an identity that sleeps mostly has none.
CREATE INDEX flow_identity ON maxhost.flow (identity);
