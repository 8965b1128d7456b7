//! Requests to the HTTP API of RabbitMQ's management plugin, over a few connections that are used again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use maxhost_broker::BrokerError;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::dial;
use crate::error::{refused, unavailable};
use crate::options::{AmqpOptions, ManagementAddress};

/// Requests that are under way at once; further ones wait.
const AT_ONCE: usize = 16;
/// How long an answer may take, with the time until it is a request's turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one server may take until a connection to it is open.
const OPEN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read. The longest is a page of queues.
const LARGEST: usize = 4 << 20;

/// A client of the API.
pub(crate) struct Http {
    address: ManagementAddress,
    tls: Option<Arc<ClientConfig>>,
    authorization: HeaderValue,
    places: Semaphore,
    /// Connections that nobody uses at present.
    idle: Mutex<Vec<Connection>>,
}

type Connection = SendRequest<Full<Bytes>>;

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What was answered: the status, and the value; null if there is none.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub value: Value,
}

impl Answer {
    /// Why something was not done, in the server's words.
    pub fn reason(&self) -> String {
        let said = self.value["reason"].as_str().map_or_else(|| self.value.to_string(), str::to_owned);
        format!("{said} ({})", self.status.as_u16())
    }
}

impl Http {
    /// A client for the user that the host logs in as.
    pub fn new(options: &AmqpOptions, address: &ManagementAddress) -> Result<Http, BrokerError> {
        let Some(credentials) = &options.credentials else {
            return Err(refused("its management is asked by a user with a password, and its address names no user"));
        };
        let pair = Zeroizing::new(format!("{}:{}", credentials.user, credentials.password.as_str()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut authorization = HeaderValue::from_str(&basic).map_err(unavailable)?;
        authorization.set_sensitive(true);
        let tls = match (&options.tls, address.encrypted) {
            (Some(tls), true) => Some(dial::client_config(tls)?),
            _ => None,
        };
        Ok(Http {
            address: address.clone(),
            tls,
            authorization,
            places: Semaphore::new(AT_ONCE),
            idle: Mutex::default(),
        })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, BrokerError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn put(&self, path: &str, value: &Value) -> Result<Answer, BrokerError> {
        self.ask(Method::PUT, path, value.to_string().into()).await
    }

    pub async fn post(&self, path: &str, value: &Value) -> Result<Answer, BrokerError> {
        self.ask(Method::POST, path, value.to_string().into()).await
    }

    /// Asks once more if a connection was lost that was used before: every request of ours may be carried out twice.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, BrokerError> {
        let asking = async {
            let _place = self.places.acquire().await.map_err(unavailable)?;
            let used = self.idle.lock().pop();
            if let Some(used) = used
                && !used.is_closed()
                && let Ok(answer) = self.ask_on(used, method.clone(), path, body.clone()).await
            {
                return Ok(answer);
            }
            let fresh = self.connect().await?;
            self.ask_on(fresh, method, path, body).await
        };
        let silent = || Err(unavailable("the broker's management does not answer"));
        let answer = timeout(PATIENCE, asking).await.unwrap_or_else(|_| silent())?;
        match answer.status {
            StatusCode::UNAUTHORIZED => {
                Err(refused("its management does not accept the user and password that the host was given"))
            }
            StatusCode::FORBIDDEN => Err(refused(format!(
                "its management does not let the host's user ask for {path}: give the user the tag monitoring, and the \
                 permissions configure, write and read in the virtual host /"
            ))),
            status if status.is_server_error() && answer.value["status"] != "failed" => {
                Err(unavailable(format!("the broker's management fails: {}", answer.reason())))
            }
            _ => Ok(answer),
        }
    }

    async fn ask_on(
        &self,
        mut connection: Connection,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, BrokerError> {
        connection.ready().await.map_err(unavailable)?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/{path}"))
            .header(HOST, "rabbitmq")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))
            .map_err(unavailable)?;
        let response = connection.send_request(request).await.map_err(unavailable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(unavailable)?.to_bytes();
        let value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned())),
        };
        let mut idle = self.idle.lock();
        if idle.len() < AT_ONCE {
            idle.push(connection);
        }
        Ok(Answer { status, value })
    }

    /// A connection to the first server that answers.
    async fn connect(&self) -> Result<Connection, BrokerError> {
        let mut failed = None;
        for (server, port) in &self.address.servers {
            let opening = async {
                let stream = dial::stream(server, *port, self.tls.as_ref()).await?;
                let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(unavailable)?;
                // It ends when the connection is not used any more.
                tokio::spawn(driver);
                Ok::<_, BrokerError>(connection)
            };
            let opened = timeout(OPEN, opening).await;
            match opened.unwrap_or_else(|_| Err(unavailable(format!("{server}:{port} did not answer within {OPEN:?}"))))
            {
                Ok(connection) => return Ok(connection),
                Err(error) if failed.as_ref().is_none_or(BrokerError::is_transient) => failed = Some(error),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| refused("the address of its management names no server")))
    }
}
