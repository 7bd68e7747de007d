//! The admin server: metrics, status and probes over HTTP, on the control loop's thread and never in the data path.
//!
//! It is bounded so that a slow or hostile client can't hurt: few connections at once, each for one request and a short time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use midmile_gateway::{Limits, Observer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::addr::Endpoint;
use crate::exit::Failure;
use crate::resolve::Names;

mod metrics;
mod status;
mod view;

/// Connections served at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may last, from its acceptance to the last byte of the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What requests see.
#[derive(Clone)]
struct Shared {
    observer: Observer,
    draining: Arc<AtomicBool>,
    limits: Limits,
}

/// Opens the admin server's listener. Of a name's addresses the first is taken.
///
/// # Errors
/// If it can't be had, a port in use say.
pub(crate) async fn bind(listen: &Endpoint, names: &Names) -> Result<TcpListener, Failure> {
    let addr: Option<SocketAddr> = match listen {
        Endpoint::Ip(addr) => Some(*addr),
        Endpoint::Name(name) => names.get(name).and_then(|addrs| addrs.first()).copied(),
        Endpoint::UnixPath(_) | Endpoint::UnixAbstract(_) => None,
    };
    let addr = addr.expect("a checked admin address is no Unix-domain socket, and its name was resolved");
    TcpListener::bind(addr)
        .await
        .map_err(|error| Failure::Run(format!("the admin server can't listen on {listen}: {error}")))
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, observer: Observer, draining: Arc<AtomicBool>, limits: Limits) {
    match listener.local_addr() {
        Ok(listen) => tracing::info!(%listen, "the admin server accepts"),
        Err(error) => tracing::warn!(%error, "the admin server doesn't know its address"),
    }
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { answer(StatusCode::OK, TEXT, "alive\n") }))
        .route("/readyz", get(readyz))
        .route("/status.json", get(status))
        .fallback(|| async {
            answer(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz, /readyz, /status.json\n")
        })
        .with_state(Shared { observer, draining, limits });
    let listener = Bounded { listener, slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the admin server ended");
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An answer after which the connection is closed: its slot is for the next one.
fn answer(status: StatusCode, kind: &'static str, body: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, kind), (header::CONNECTION, "close")], body.into()).into_response()
}

fn failed(error: impl std::fmt::Display) -> Response {
    answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n"))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let draining = shared.draining.load(Relaxed);
    match metrics::encode(view::View::new(shared.observer.snapshot(), draining, shared.limits).with_friends()) {
        Ok(text) => answer(StatusCode::OK, OPEN_METRICS, text),
        Err(error) => failed(error),
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    let draining = shared.draining.load(Relaxed);
    match status::encode(&view::View::new(shared.observer.snapshot(), draining, shared.limits)) {
        Ok(text) => answer(StatusCode::OK, JSON, text),
        Err(error) => failed(error),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.draining.load(Relaxed) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n");
    }
    answer(StatusCode::OK, TEXT, "ready\n")
}

/// A listener that accepts only while it has a slot.
struct Bounded {
    listener: TcpListener,
    slots: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, addr)) => {
                    let end = Box::pin(sleep_until(Instant::now() + CONNECTION_TIMEOUT));
                    return (Brief { stream, end, _slot: slot }, addr);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its time is over.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Brief {
    /// Ready with an error once the time is over; the task is woken then.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, io::Error>> {
        self.end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Brief {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.poll_over(cx) {
            Poll::Ready(over) => Poll::Ready(over.map(|_| ())),
            Poll::Pending => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_over(cx) {
            Poll::Ready(over) => Poll::Ready(over.map(|_| 0)),
            Poll::Pending => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
