//! The admin port: `/livez`, `/readyz`, `/metrics`.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::watch};

/// What it shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Every metric.
    pub registry: Registry,
    /// Whether the API server has been reached.
    pub ready: watch::Receiver<bool>,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, router).await
}

/// A follower is ready too: it can take over.
async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if *admin.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not been reached yet\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> Result<String, StatusCode> {
    let text = TextEncoder::new().encode_to_string(&admin.registry.gather());
    text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
