//! Variables that begin as ours do and are made by Kubernetes or Docker.

/// Whether a variable is one of those that Kubernetes puts into each container for each service of the namespace (Docker's
/// container links have the same shapes). A service named `maxhost-rpc` brings `MAXHOST_RPC_SERVICE_HOST`,
/// `MAXHOST_RPC_SERVICE_PORT`, `MAXHOST_RPC_SERVICE_PORT_<NAME>`, `MAXHOST_RPC_PORT=tcp://10.0.0.1:7000`,
/// `MAXHOST_RPC_PORT_7000_TCP` and `MAXHOST_RPC_PORT_7000_TCP_{PROTO,PORT,ADDR}`.
pub(super) fn is_service_link(variable: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    if variable.ends_with("_SERVICE_HOST") || variable.ends_with("_SERVICE_PORT") || variable.contains("_SERVICE_PORT_")
    {
        return true;
    }
    if variable.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    // The name of the service may have `_PORT` in it as well.
    variable.match_indices("_PORT").filter_map(|(at, mark)| variable[at + mark.len()..].strip_prefix('_')).any(|rest| {
        let mut words = rest.split('_');
        let port = words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()));
        let protocol = words.next().is_some_and(|word| PROTOCOLS.contains(&word));
        port && protocol && matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR")) && words.next().is_none()
    })
}
