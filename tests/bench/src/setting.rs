//! Where it is measured: folders, how long, and the host as a process with clients.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::installation::{HostProcess, Installation, repository};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_service_client::FlowServiceClient;
use maxhost_rpc::proto::v1::host_service_client::HostServiceClient;
use tonic::transport::{Channel, Endpoint};

/// How a measurement ends.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Identities of the small network.
const SMALL: u32 = 20;
/// Identities of the large one.
pub const LARGE: u32 = 10_000;
/// Connections of a client: one would make a single task of the host read all requests.
const CONNECTIONS: usize = 4;

/// How to measure.
pub struct Setting {
    /// Shorter, and less exact.
    pub quick: bool,
}

impl Setting {
    pub fn new(quick: bool) -> Setting {
        Setting { quick }
    }

    /// How often a measurement is taken; its median counts.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Length of one measurement under load.
    pub fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { 4 } else { 10 })
    }

    fn folder(&self, name: &str) -> PathBuf {
        repository().join("target").join(name)
    }

    /// Where the figures go.
    pub fn result_file(&self) -> PathBuf {
        self.folder("bench.json")
    }

    /// A folder for other files, on the same file system.
    pub fn scratch(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("bench-").tempdir_in(self.folder(""))
    }

    /// The network of two dozen identities, without any data.
    pub fn small(&self) -> Outcome<Installation> {
        self.network("bench-small", SMALL)
    }

    /// The network of ten thousand, without any data. Made once; that takes a minute or two.
    pub fn large(&self) -> Outcome<Installation> {
        self.network("bench-net", LARGE)
    }

    fn network(&self, name: &str, count: u32) -> Outcome<Installation> {
        let folder = self.folder(name);
        let installation = match Installation::existing(&folder) {
            Some(installation) => installation,
            None => {
                println!("  making a network of {count} identities in target/{name} …");
                Installation::init(&folder, count)?
            }
        };
        installation.forget()?;
        // The CorDapps of today: two builds of one would leave open which is meant.
        let installed = folder.join("cordapps");
        std::fs::remove_dir_all(&installed)?;
        std::fs::create_dir(&installed)?;
        for component in std::fs::read_dir(crate::installation::cordapps())? {
            let component = component?;
            std::fs::copy(component.path(), installed.join(component.file_name()))?;
        }
        Ok(installation)
    }
}

/// The name of one of the numbered identities, from 1.
pub fn party(number: u32) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

/// A runtime for the load generator.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Connections to a host.
#[derive(Clone)]
pub struct Clients {
    flows: Vec<FlowServiceClient<Channel>>,
    host: HostServiceClient<Channel>,
}

impl Clients {
    pub async fn connect(host: &HostProcess) -> Outcome<Clients> {
        let mut flows = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(host.endpoint())?.tcp_nodelay(true);
            flows.push(FlowServiceClient::new(endpoint.connect().await?));
        }
        let host = HostServiceClient::new(Endpoint::from_shared(host.endpoint())?.connect().await?);
        Ok(Clients { flows, host })
    }

    pub fn flows(&self, number: usize) -> FlowServiceClient<Channel> {
        self.flows[number % self.flows.len()].clone()
    }

    pub async fn status(&self) -> Outcome<pb::StatusResponse> {
        Ok(self.host.clone().status(pb::StatusRequest {}).await?.into_inner())
    }

    /// Starts a flow; returns when that is durable.
    pub async fn start(&self, number: usize, identity: &str, flow: &str, json: String) -> Outcome<String> {
        let request = request(identity, flow, json);
        let started = self.flows(number).start_flow(request).await?.into_inner().flow;
        Ok(started.map(|flow| flow.flow_id).unwrap_or_default())
    }

    /// Starts a flow and follows it to its end, progress and all. Gives the moment at which its end was known here.
    pub async fn run(&self, number: usize, identity: &str, flow: &str, json: String) -> Outcome<Instant> {
        let mut events = self.flows(number).start_and_attach(request(identity, flow, json)).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(pb::flow_event::Event::Ended(ended)) = event.event {
                let known = Instant::now();
                // A stream that is given up before its end is held against the host, and a connection has only so much
                // patience with those.
                while events.message().await?.is_some() {}
                return match ended.end {
                    Some(pb::flow::End::Result(_)) => Ok(known),
                    other => Err(format!("flow {} of {identity} ended with {other:?}", ended.flow_id).into()),
                };
            }
        }
        Err(format!("the events of a flow of {identity} ended before the flow").into())
    }
}

fn request(identity: &str, flow: &str, json: String) -> pb::StartFlowRequest {
    pb::StartFlowRequest {
        identity: identity.to_owned(),
        flow: flow.to_owned(),
        arguments: Some(pb::start_flow_request::Arguments::Json(json)),
        client_id: None,
        encoding: pb::Encoding::Json.into(),
    }
}
