//! What machines ask a host over plain HTTP: `/metrics` for Prometheus, `/livez`, `/readyz` and `/readyz/clients` for an
//! orchestrator.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use maxhost_flows::Host;
use maxhost_flows::api::{Caller, HostApi, HostStatus};
use maxhost_model::{Code, Problem};
use maxhost_rpc::MessageCounts;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Connections at once. More are closed at once: whoever asks comes again.
const CONNECTIONS: usize = 64;
/// How long a request may take to arrive, and an answer to be found.
const PATIENCE: Duration = Duration::from_secs(5);
/// The format that Prometheus reads.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A port that is bound and not served yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds the port of `metrics.listen`, if there is one.
///
/// # Errors
/// `config-invalid` if the address is none, `port-in-use`.
pub async fn bind(config: &Config) -> Result<Option<Bound>, Problem> {
    let Some(listen) = config.metrics() else { return Ok(None) };
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::AddrInUse { Code::PortInUse } else { Code::ConfigInvalid };
        Problem::new(code, format!("metrics.listen: cannot listen on '{listen}': {error}"))
            .remedy("set metrics.listen to host:port; port 0 picks a free one")
            .detail("listen", listen)
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Some(Bound { listener, address }))
}

impl Bound {
    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the host stops; also with what becomes of requests that come as messages, if this host takes such.
    pub fn serve(self, host: Arc<Host>, messages: Option<MessageCounts>, stop: CancellationToken) {
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(CONNECTIONS));
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = self.listener.accept() => accepted,
                };
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::debug!(%error, "a connection for metrics was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let (host, messages, stopping) = (Arc::clone(&host), messages.clone(), stop.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    let service =
                        service_fn(|request| answer(Arc::clone(&host), messages.clone(), stopping.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(PATIENCE)
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        // A client that breaks off is no news.
                        _over = connection => {}
                        () = stopping.cancelled() => {}
                    }
                });
            }
        });
    }
}

async fn answer(
    host: Arc<Host>,
    messages: Option<MessageCounts>,
    stop: CancellationToken,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match look(&host).await {
            Ok(status) => {
                let mut text = exposition(&status, demand(&host).await, oldest(&host).await);
                if let Some(messages) = messages {
                    of_messages(&mut text, &messages);
                }
                (StatusCode::OK, EXPOSITION, text)
            }
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        // Alive is who answers: what the host depends on is for `readyz` alone, so that nobody restarts it for that.
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => told(ready(&stop, host.ready()).await),
        (&Method::GET | &Method::HEAD, "/readyz/clients") => told(ready(&stop, host.ready_for_clients()).await),
        (&Method::GET | &Method::HEAD, _) => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics, /livez, /readyz and /readyz/clients\n".to_owned(),
        ),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is known here\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

/// Whether the host is not about to stop, and is ready.
async fn ready(stop: &CancellationToken, look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    if stop.is_cancelled() {
        return Err("the host is stopping".to_owned());
    }
    look.await
}

fn told(ready: Result<(), String>) -> (StatusCode, &'static str, String) {
    match ready {
        Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
    }
}

async fn look(host: &Host) -> Result<HostStatus, String> {
    match tokio::time::timeout(PATIENCE, host.status(&Caller::local())).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(problem)) => Err(format!("{} [{}]", problem.message, problem.code)),
        Err(_) => Err("the host does not answer in time".to_owned()),
    }
}

/// How many slots are wanted; `None` if that is not known, or this host is alone. Then nothing is told of it, because 0 would
/// mean that no host is wanted.
async fn demand(host: &Host) -> Option<u64> {
    tokio::time::timeout(PATIENCE, host.demand(&Caller::local())).await.ok()?.ok()
}

/// For how long the message has waited that waits longest, seconds: 0 if none does. `None`, and then nothing is told of it,
/// if that is not known.
async fn oldest(host: &Host) -> Option<f64> {
    Some(host.oldest_message().await.ok()?.unwrap_or_default().as_secs_f64())
}

/// The status in the text format of Prometheus. No metric has a label for an identity: there may be ten thousand.
fn exposition(status: &HostStatus, demand: Option<u64>, oldest: Option<f64>) -> String {
    let mut text = String::new();
    let mut family =
        |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| write(&mut text, (name, kind, help), samples);
    let by_state = |counts: &std::collections::BTreeMap<&'static str, u64>, states: &[&str]| -> Vec<(String, f64)> {
        let of = |state: &&str| (format!("{{state=\"{state}\"}}"), counts.get(*state).copied().unwrap_or(0) as f64);
        states.iter().map(of).collect()
    };
    let one = |value: f64| vec![(String::new(), value)];
    family(
        "maxhost_build_info",
        "gauge",
        "The version of the host.",
        &[(format!("{{version=\"{}\"}}", status.version), 1.0)],
    );
    let states = ["cold", "opening", "active", "draining", "quarantined"];
    family("maxhost_identities", "gauge", "Identities of the host by state.", &by_state(&status.identities, &states));
    let states = ["running", "suspended", "paused", "hospital"];
    family("maxhost_flows", "gauge", "Flows that have not ended, by state.", &by_state(&status.flows, &states));
    let states = ["completed", "failed", "killed"];
    let ended = by_state(&status.flows, &states);
    family(
        "maxhost_flows_ended_total",
        "counter",
        "Flows that have ended since the start of the host, by state.",
        &ended,
    );
    family("maxhost_flow_instances", "gauge", "Flow instances in memory.", &one(status.instances as f64));
    family("maxhost_resident_memory_bytes", "gauge", "Resident memory of the process.", &one(status.rss_bytes as f64));
    let uptime = status.uptime_ms as f64 / 1000.0;
    family("maxhost_uptime_seconds", "gauge", "Time since the start of the host.", &one(uptime));
    if let Some(demand) = demand {
        let help = "Identities that somebody wants to run, whether a host runs them or not.";
        family("maxhost_demand_slots", "gauge", help, &one(demand as f64));
    }
    if let Some(oldest) = oldest {
        let help = "For how long the message has waited that waits longest, in the broker or the database.";
        family("maxhost_oldest_message_seconds", "gauge", help, &one(oldest));
    }
    for (name, count) in &status.counters {
        let name = format!("maxhost_{name}_total");
        family(&name, "counter", "See docs/operating.md.", &one(*count as f64));
    }
    text
}

/// What has become of requests that came as messages.
fn of_messages(text: &mut String, messages: &MessageCounts) {
    let outcomes = messages.outcomes().map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), count as f64));
    let help = "Requests that came as messages, by what became of them.";
    write(text, ("maxhost_rpc_messages_total", "counter", help), &outcomes);
    let help = "Requests that came as messages and wait for the end of a flow, or for trouble to pass.";
    write(text, ("maxhost_rpc_messages_waiting", "gauge", help), &[(String::new(), messages.waiting() as f64)]);
}

fn write(text: &mut String, (name, kind, help): (&str, &str, &str), samples: &[(String, f64)]) {
    // Writing into a text cannot fail.
    let _written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _written = writeln!(text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_exposition_keeps_the_rules_of_prometheus() {
        let status = HostStatus {
            identities: [("cold", 3), ("active", 1)].into(),
            flows: [("running", 2), ("completed", 7)].into(),
            instances: 2,
            rss_bytes: 1 << 20,
            uptime_ms: 1_500,
            version: "0.1.0".to_owned(),
            counters: [("steps", 12)].into(),
        };
        let unknown = exposition(&status, None, None);
        let left_out = ["maxhost_demand_slots", "maxhost_oldest_message_seconds"].map(|name| !unknown.contains(name));
        assert_eq!(left_out, [true; 2], "what is not known is not 0");
        let text = exposition(&status, Some(0), Some(2.5));
        assert!(text.contains("maxhost_demand_slots 0\n"), "{text}");
        assert!(text.contains("maxhost_oldest_message_seconds 2.5\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let bare = name.split('{').next().unwrap();
            assert!(bare.starts_with("maxhost_"), "{line}");
            assert!(bare.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            assert!(!name.contains("identity="), "{line}");
            let kind = if bare.ends_with("_total") { "counter" } else { "gauge" };
            assert!(text.contains(&format!("# TYPE {bare} {kind}\n")), "{line}");
        }
        assert!(text.contains("maxhost_identities{state=\"cold\"} 3\n"), "{text}");
        assert!(text.contains("maxhost_flows_ended_total{state=\"completed\"} 7\n"), "{text}");
        assert!(text.contains("maxhost_uptime_seconds 1.5\n"), "{text}");
    }
}
